"""What an alert means beside what is held, as a table: the whole of plan.py, without exchange or daemon."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Action, Market, Side, Signal
from plan import Held, Leg, Plan, may_enter, plan
from sizing import Wish

D = Decimal
DEFAULT = Wish(amount=D(10))
ALL = Wish(reduce_only=True)
BUY, SELL, CLOSE, TARGET = {"action": Action.BUY}, {"action": Action.SELL}, {"action": Action.CLOSE}, {
    "action": Action.TARGET, "intent": "set_position"}  # fmt: skip


def held(size: int | str, *, moving: bool = False) -> Held:
    signed = D(size)
    return Held(signed, (signed > 0) - (signed < 0), moving)


def of(market: Market, size: int | str | Held, **alert: Any) -> Plan:
    holding = size if isinstance(size, Held) else held(size)
    numbers = ("quantity", "percent", "position_size")
    fields: dict[str, Any] = alert | {name: D(str(alert[name])) for name in numbers if name in alert}
    return plan(Signal(symbol="BTCUSDT", **fields), market, holding, DEFAULT)


def futures(size: int | str | Held, **alert: Any) -> Plan:
    return of(Market.FUTURES, size, **alert)


def opens(side: Side, wish: Wish = DEFAULT) -> tuple[Leg, ...]:
    return (Leg(False, side, wish),)


def closes(side: Side, wish: Wish = ALL) -> tuple[Leg, ...]:
    return (Leg(True, side, wish),)


def flat(side: Side, wish: Wish = ALL) -> tuple[Leg, ...]:
    """Out of whatever is held by then."""
    return (Leg(True, side, wish, whatever=True),)


def some(quantity: int | str, *, only_held: bool = False) -> Wish:
    return Wish(quantity=D(quantity), reduce_only=only_held)


B, S = Side.BUY, Side.SELL

# What is held (negative: short), the alert, the legs.
FUTURES: list[tuple[int, dict[str, Any], tuple[Leg, ...]]] = [
    # a side alone
    (0, BUY, opens(B)),
    (0, SELL, opens(S)),
    (0, BUY | {"quantity": 2}, opens(B, some(2))),
    (1, BUY, opens(B)),
    (-1, SELL, opens(S)),
    (1, SELL, closes(S)),
    (-1, BUY, closes(B)),
    (1, SELL | {"quantity": 3}, closes(S, some(3, only_held=True))),
    (3, SELL | {"quantity": 1}, closes(S, some(1, only_held=True))),
    (3, SELL | {"percent": 50}, closes(S, Wish(percent=D(50), reduce_only=True))),
    # out, whichever way the side points
    (1, CLOSE, flat(S)),
    (-1, CLOSE, flat(B)),
    (3, CLOSE | {"quantity": 1}, flat(S, some(1, only_held=True))),
    (1, SELL | {"market_position": "flat", "quantity": 5}, flat(S)),
    (1, BUY | {"market_position": "flat"}, flat(S)),
    (-1, SELL | {"market_position": "flat"}, flat(B)),
    (1, SELL | {"position_size": 0, "quantity": 5}, flat(S)),
    (1, SELL | {"reduce_only": True}, closes(S)),
    (1, SELL | {"intent": "close_long"}, closes(S)),
    # a stated target on the other side: out, then in
    (1, SELL | {"market_position": "short"}, closes(S) + opens(S)),
    (-1, BUY | {"market_position": "long"}, closes(B) + opens(B)),
    (1, SELL | {"intent": "open_short"}, closes(S) + opens(S)),
    (1, SELL | {"reverse": True}, closes(S) + opens(S)),
    (1, SELL | {"market_position": "short", "quantity": 3}, closes(S) + opens(S, some(2))),
    (1, SELL | {"market_position": "short", "quantity": 1}, closes(S) + opens(S, some(1))),
    (1, SELL | {"market_position": "short", "quantity": 3, "position_size": -2}, closes(S) + opens(S, some(2))),
    # the same side: an entry
    (0, SELL | {"market_position": "short"}, opens(S)),
    (1, BUY | {"market_position": "long"}, opens(B)),
    # less of what is held
    (3, SELL | {"market_position": "long", "quantity": 1}, closes(S, some(1, only_held=True))),
    (-3, BUY | {"market_position": "short", "quantity": 1}, closes(B, some(1, only_held=True))),
    # the size to end with
    (0, TARGET | {"position_size": 2}, opens(B, some(2))),
    (0, TARGET | {"position_size": -2}, opens(S, some(2))),
    (1, TARGET | {"position_size": 3}, opens(B, some(2))),
    (3, TARGET | {"position_size": 1}, closes(S, some(2, only_held=True))),
    (-3, TARGET | {"position_size": -1}, closes(B, some(2, only_held=True))),
    (2, TARGET | {"position_size": -1}, closes(S) + opens(S, some(1))),
    (2, TARGET | {"position_size": 0}, flat(S)),
    (0, BUY | {"quantity": 1, "position_size": 3}, opens(B, some(3))),
    (2, BUY | {"quantity": 1, "position_size": 3}, opens(B, some(1))),
    (3, SELL | {"quantity": 1, "position_size": 1}, closes(S, some(2, only_held=True))),
]  # fmt: skip


@pytest.mark.parametrize(("size", "alert", "legs"), FUTURES)
def test_on_futures_an_alert_means(size: int, alert: dict[str, Any], legs: tuple[Leg, ...]) -> None:
    assert futures(size, **alert) == Plan(legs)


# What is held, the alert, the check that says why there is nothing to do.
NOTHING: list[tuple[int, dict[str, Any], str]] = [
    (0, CLOSE, "no_position"),
    (0, SELL | {"market_position": "flat"}, "no_position"),
    (0, SELL | {"reduce_only": True}, "no_position"),
    (-1, SELL | {"reduce_only": True}, "no_position"),
    (-1, SELL | {"intent": "close_long"}, "no_position"),
    (-1, CLOSE | {"intent": "close_long"}, "no_position"),
    (0, SELL | {"market_position": "long", "quantity": 1}, "no_position"),
    (-1, SELL | {"market_position": "long", "quantity": 1}, "no_position"),
    (3, TARGET | {"position_size": 3}, "target"),
    (3, TARGET | {"position_size": "2.99"}, "target"),
    (3, BUY | {"quantity": 1, "position_size": 3}, "target"),
    (3, BUY | {"quantity": 1, "position_size": 2}, "target"),
    (1, SELL | {"quantity": 1, "position_size": 2}, "target"),
    (0, BUY | {"quantity": 1, "position_size": 1, "reduce_only": True}, "no_position"),
]  # fmt: skip


@pytest.mark.parametrize(("size", "alert", "check"), NOTHING)
def test_where_there_is_nothing_to_do_it_says_so(size: int, alert: dict[str, Any], check: str) -> None:
    found = futures(size, **alert)
    assert found.nothing is not None
    assert found.nothing[0] == check


def test_a_way_out_that_is_stuck_does_not_keep_another_from_trying() -> None:
    """All of it is meant to be closed already; what is held is held all the same."""
    stuck = Held(D(1), 0, True)
    assert futures(stuck, **CLOSE) == Plan(flat(S))
    assert futures(stuck, **SELL, market_position="flat") == Plan(flat(S))
    assert futures(stuck, **SELL, intent="close_long") == Plan(closes(S))
    assert futures(stuck, **SELL, reduce_only=True) == Plan(closes(S))
    assert futures(stuck, **BUY, reduce_only=True).nothing is not None
    assert futures(stuck, **SELL, quantity="0.4", position_size="0.6") == Plan(closes(S, some("0.4", only_held=True)))


def test_a_target_counts_nothing_of_what_is_being_closed() -> None:
    assert futures(Held(D(-1), 0, True), **BUY, quantity=2, position_size=2) == Plan(opens(B, some(2)))
    assert futures(Held(D(1), 0, True), **BUY, quantity=2, position_size=2) == Plan(opens(B, some(2)))


def test_while_orders_are_under_way_nobody_knows_how_much_is_missing() -> None:
    found = futures(held(1, moving=True), **TARGET, position_size=3)
    assert (found.nothing or ("",))[0] == "unresolved"


@pytest.mark.parametrize(("size", "out", "side"), [(3, SELL, S), (-3, BUY, B)])
def test_while_orders_are_under_way_a_part_is_closed_by_the_quantity_that_was_stated(
    size: int, out: dict[str, Any], side: Side
) -> None:
    target = size // abs(size)
    alert = out | {"quantity": 1, "position_size": target}
    assert futures(held(size, moving=True), **alert) == Plan(closes(side, some(1, only_held=True)))
    more = {S: BUY, B: SELL}[side] | {"quantity": 1, "position_size": size * 2}
    assert (futures(held(size, moving=True), **more).nothing or ("",))[0] == "unresolved"


def test_a_reversal_does_not_wait_to_know_how_much_is_held() -> None:
    assert futures(held(1, moving=True), **TARGET, position_size=-3) == Plan(closes(S) + opens(S, some(3)))


SPOT: list[tuple[int, dict[str, Any], tuple[Leg, ...]]] = [
    (0, BUY, opens(B)),
    (3, SELL, closes(S, Wish())),
    (3, SELL | {"quantity": 1}, closes(S, some(1))),
    (3, SELL | {"market_position": "short", "quantity": 9}, closes(S)),
    (3, BUY | {"market_position": "flat"}, closes(S)),
    (1, TARGET | {"position_size": 3}, opens(B, some(2))),
    (3, TARGET | {"position_size": 1}, closes(S, some(2, only_held=True))),
    (3, TARGET | {"position_size": -1}, closes(S)),
    (3, BUY | {"quantity": 1, "position_size": 9}, opens(B, some(1))),
]  # fmt: skip


@pytest.mark.parametrize(("size", "alert", "legs"), SPOT)
def test_on_spot_an_alert_means(size: int, alert: dict[str, Any], legs: tuple[Leg, ...]) -> None:
    assert of(Market.SPOT, size, **alert) == Plan(legs)


anything = st.fixed_dictionaries(
    {"action": st.sampled_from([Action.BUY, Action.SELL, Action.CLOSE])},
    optional={
        "quantity": st.integers(1, 5),
        "position_size": st.integers(-5, 5),
        "market_position": st.sampled_from(["long", "short", "flat"]),
        "reduce_only": st.just(True),
        "reverse": st.just(True),
        "intent": st.sampled_from(["close_long", "close_short", "reduce", "open_long", "open_short"]),
    },
)


@given(anything, st.integers(-5, 5), st.booleans())
def test_whatever_the_alert_a_way_out_points_out_and_an_entry_never_follows_a_close(
    alert: dict[str, Any], size: int, moving: bool
) -> None:
    found = futures(held(size, moving=moving), **alert)
    if found.nothing:
        return
    for leg in found.legs:
        out = S if size > 0 else B
        assert leg.is_exit is (size != 0 and leg.side is out and not (len(found.legs) == 2 and leg is found.legs[1]))
        assert not leg.is_exit or leg.wish.reduce_only
    closing = alert["action"] is Action.CLOSE or alert.get("reduce_only") or alert.get("market_position") == "flat"
    assert not closing or all(leg.is_exit for leg in found.legs)
    assert all(leg.is_exit for leg in found.legs) or may_enter(Signal(symbol="X", **alert), Market.FUTURES)
