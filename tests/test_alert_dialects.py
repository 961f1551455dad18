"""What alerts of further bots mean, and that no field which changes the order is passed over. The alerts themselves are
in tests/data/more_alerts.jsonl, and test_signals.py goes over them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from models import Market, Signal
from plan import Held, Plan, plan
from signals import AlertError, parse_alert
from sizing import Wish

FLAT, LONG, SHORT = Held(Decimal(0), 0, False), Held(Decimal(1), 1, False), Held(Decimal(-1), -1, False)


def said(**fields: Any) -> Signal:
    """A buy of BTCUSDT that also says this; None takes a field away."""
    return parse_alert(json.dumps({"symbol": "BTCUSDT", "action": "buy"} | fields).encode())


def refused(**fields: Any) -> AlertError:
    with pytest.raises(AlertError) as error:
        said(**fields)
    return error.value


def on_futures(held: Held, **fields: Any) -> Plan:
    return plan(said(**fields), Market.FUTURES, held, Wish(amount=Decimal(10)))


def nothing_opens(held: Held, **fields: Any) -> bool:
    found = on_futures(held, **fields)
    return found.nothing is not None or all(leg.is_exit for leg in found.legs)


# --- positions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["posSide", "pos_side", "holdSide"])
def test_the_side_of_the_position_is_read_under_the_names_that_exchanges_give_it(field: str) -> None:
    assert said(action="sell", **{field: "long"}).intent == "close_long"
    assert nothing_opens(FLAT, action="sell", quantity=1, **{field: "long"})


@pytest.mark.parametrize("word", ["BOTH", "net"])
def test_one_way_mode_as_position_side_says_nothing(word: str) -> None:
    assert said(positionSide=word) == said()


def test_bybits_index_of_a_hedge_position_is_refused_by_name() -> None:
    assert refused(action="sell", positionIdx=1).field == "positionIdx"
    assert said(positionIdx=0) == said()


@pytest.mark.parametrize("field", ["mar_pos", "current_position"])
def test_a_closing_sell_opens_no_short_where_the_flat_position_has_another_name(field: str) -> None:
    assert said(action="sell", **{field: "flat"}).market_position == "flat"
    assert nothing_opens(FLAT, action="sell", quantity="0.5", **{field: "flat"})


def test_a_reversal_is_one_where_both_positions_have_other_names() -> None:
    order = {"action": "buy", "contracts": 2}
    alert = {"action": None, "strategy": {"order": order, "current_position": "long", "prev_position": "short"}}
    assert said(**alert).intent == "reverse_long"
    assert on_futures(SHORT, **alert).is_reversal


def test_a_target_position_is_the_size_to_end_with() -> None:
    assert said(action="sell", target_position="-0.3", quantity="0.6").position_size == Decimal("-0.3")
