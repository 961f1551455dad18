"""The BingX brokers against the fake exchange: every way a call can end, and what is told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fake_bingx
import pytest
from builders import an_order
from fake_bingx import API_KEY, API_SECRET, FakeBingx
from harness import SHORT_PACE, SHORT_SECOND

import bingx_client
import bingx_link
import bingx_spot
from bingx_client import BingxSwap
from bingx_orders import query_of
from bingx_spot import BingxSpot
from broker import Balance, BrokerError, Done, Found, NoAnswer, NotFound, Outcome, Refused, Unknown, UnknownSymbol
from broker_http import Answered, Http
from models import Account, Fee, HeldThere, Market, Order, OrderStatus, OrderType, Side, TradedThere

D = Decimal
S = OrderStatus
PLACE = "POST /openApi/swap/v2/trade/order"


@pytest.fixture
def fake() -> Iterator[FakeBingx]:
    with FakeBingx() as running:
        running.set_options(second=SHORT_SECOND)
        yield running


@pytest.fixture
def swap(fake: FakeBingx) -> BingxSwap:
    broker = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
    broker._began = 0.0  # long ago: no calls of a process before it are reckoned with
    broker.connect()
    fake.calls.clear()
    return broker


@pytest.fixture
def spot(fake: FakeBingx) -> BingxSpot:
    broker = BingxSpot(API_KEY, API_SECRET, demo=False, api_url=fake.url)
    broker._began = 0.0
    broker.connect()
    return broker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bingx_client, "FILL_PAUSES", (0.0, 0.05, 0.1))
    monkeypatch.setattr(bingx_spot, "FILL_PAUSES", (0.0, 0.05, 0.1))
    monkeypatch.setattr(bingx_link, "ORDER_SECONDS", 0.4)
    monkeypatch.setattr(bingx_link, "ASK_SECONDS", 0.4)
    monkeypatch.setattr(bingx_link, "PACE_SECONDS", SHORT_PACE)


def order(kind: str = "MARKET", side: str = "BUY", market: Market = Market.FUTURES, **more: Any) -> Order:
    """0.01 BTC; `is_entry` is what a buy is."""
    given: dict[str, Any] = {"quantity": D("0.01"), "is_entry": side == "BUY"} | more
    now = datetime.now(UTC)
    made = an_order(broker="BINGX", market=market, type=OrderType(kind), side=Side(side), amount=None, sent_at=now)
    return replace(made, client_order_id=f"gh{time.monotonic_ns()}", created_at=now, **given)


def on_spot(kind: str = "MARKET", side: str = "BUY", **more: Any) -> Order:
    return order(kind, side, Market.SPOT, **more)


def stop(price: object = 59000, kind: str = "STOP", side: str = "SELL", **more: Any) -> Order:
    return order(kind, side, quantity=None, is_entry=False, stop_price=D(str(price)), **more)


def done(outcome: Outcome) -> Any:
    assert isinstance(outcome, Done), outcome
    return outcome.execution


# ---- placing on the swap


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("code_as_text", [False, True])
def test_a_market_order_is_told_with_quantity_sum_and_fee(
    fake: FakeBingx, swap: BingxSwap, nested: bool, code_as_text: bool
) -> None:
    fake.set_options(nested=nested, code_as_text=code_as_text, fill_seconds=0.04)
    told = done(swap.place(order()))
    assert (told.status, told.executed_quantity, told.executed_quote) == (S.FILLED, D("0.01"), D(600))
    assert told.fees == (Fee("USDT", D("0.3")),)
    assert len(told.exchange_order_id) == 19
    assert len(fake.order_posts) == 1


def test_the_first_order_of_a_symbol_sets_margin_and_leverage_and_the_next_asks_nothing(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    done(swap.place(order(leverage=D(3))))
    assert fake.margin_types == {"BTC-USDT": "ISOLATED"}
    assert fake.leverages == {("BTC-USDT", "BOTH"): 3}
    fake.calls.clear()
    done(swap.place(order(leverage=D(3))))
    assert [call.method for call in fake.calls] == ["POST", "GET"]  # the order, and what came of it


def test_in_hedge_mode_both_sides_get_the_leverage(fake: FakeBingx) -> None:
    fake.set_options(hedge_mode=True)
    broker = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
    broker.connect()
    done(broker.place(order(leverage=D(4))))
    assert fake.leverages == {("BTC-USDT", "LONG"): 4, ("BTC-USDT", "SHORT"): 4}
    assert broker.positions() == [HeldThere("BTCUSDT", "LONG", D("0.01"), D(60000))]


def test_leverage_that_cannot_be_set_keeps_the_order_here(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.set_position("BTC-USDT", "LONG", 1)
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert "positions or pending orders" in outcome.reason
    assert fake.order_posts == []


def test_leverage_that_was_set_to_something_else_keeps_the_order_here(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.set_options(most_leverage=3)
    outcome = swap.place(order(leverage=D(7)))
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    assert "leverage 3 instead" in outcome.reason
    assert fake.order_posts == []


def test_leverage_is_read_again_after_its_answer_was_lost(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.fail_next("reset", "POST */leverage", executed=True)
    outcome = swap.place(order(leverage=D(2)))
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    assert fake.order_posts == []
    done(swap.place(order(leverage=D(2))))


def test_after_a_change_of_leverage_whose_answer_was_lost_nothing_is_believed_of_before(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    done(swap.place(order(leverage=D(3))))
    fake.fail_next("reset", "POST */leverage", executed=True)
    assert isinstance(swap.place(order(leverage=D(2))), Refused)
    done(swap.place(order(leverage=D(3))))
    assert fake.leverages == {("BTC-USDT", "BOTH"): 3}


def test_a_way_out_sets_no_leverage(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order(leverage=D(3))))
    fake.fail_next("code", "POST */leverage", code=109500, msg="busy", times=9)
    assert done(swap.place(order(side="SELL", leverage=D(1)))).status is S.FILLED
    assert fake.leverages == {("BTC-USDT", "BOTH"): 3}


def test_leverage_is_read_anew_after_connecting_again(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order(leverage=D(3))))
    fake.leverages["BTC-USDT", "BOTH"] = 50  # the owner's doing, while there was no connection
    swap.connect()
    done(swap.place(order(leverage=D(3))))
    assert fake.leverages == {("BTC-USDT", "BOTH"): 3}


def test_an_account_that_does_not_say_its_mode_gets_no_order(
    fake: FakeBingx, swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    route: Any = (lambda fake, params: {"dualSidePosition": ""}, False, set())
    monkeypatch.setitem(fake_bingx.ROUTES, "GET /openApi/swap/v1/positionSide/dual", route)
    with pytest.raises(BrokerError, match="hedge mode"):
        swap.connect()
    swap._hedge_mode = None
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    assert fake.order_posts == []


def test_leverage_that_was_not_set_for_want_of_an_answer_leaves_the_order_for_another_try(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    fake.fail_next("code", "POST */leverage", code=109500, msg="The current system is busy")
    outcome = swap.place(order(leverage=D(2)))
    assert isinstance(outcome, Refused)
    assert (outcome.never_left, outcome.code) == (True, "109500")
    assert fake.order_posts == []


def test_prepare_leaves_a_held_symbol_alone(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.set_position("BTC-USDT", "LONG", 1)
    with pytest.raises(BrokerError, match="left as they are"):
        swap.prepare("BTCUSDT", D(2))
    assert fake.leverages == {}
    swap.prepare("ETHUSDT", D(2))
    assert fake.leverages == {("ETH-USDT", "BOTH"): 2}


def test_a_limit_order_that_rests_is_new_and_can_be_cancelled(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order("LIMIT", price=D(50000))
    told = done(swap.place(made))
    assert told.status is S.NEW
    answer = swap.cancel(replace(made, exchange_order_id=told.exchange_order_id))
    assert isinstance(answer, Found)
    assert answer.execution.status is S.CANCELED
    assert fake.waiting == []


def test_what_a_limit_order_got_while_it_was_cancelled_is_told(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order("LIMIT", price=D(50000))
    told = done(swap.place(made))
    # The reply to the cancel was made up a moment before the last fill.
    fake.set_options(fills_while_cancelled=D("0.004"))
    answer = swap.cancel(replace(made, exchange_order_id=told.exchange_order_id))
    assert isinstance(answer, Found)
    assert (answer.execution.status, answer.execution.executed_quantity) == (S.CANCELED, D("0.004"))


def test_a_cancel_is_believed_while_the_order_is_still_listed_as_before(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order("LIMIT", price=D(50000))
    told = done(swap.place(made))
    fake.fail_next("code", "GET */trade/order", code=100500, msg="busy")
    answer = swap.cancel(replace(made, exchange_order_id=told.exchange_order_id))
    assert isinstance(answer, Found)
    assert answer.execution.status is S.CANCELED


def test_an_exit_only_reduces_and_with_nothing_to_close_is_refused(fake: FakeBingx, swap: BingxSwap) -> None:
    outcome = swap.place(order(side="SELL"))
    assert isinstance(outcome, Refused)
    assert not outcome.never_left
    assert "nothing left to close" in outcome.reason
    assert fake.amount() == 0


def test_a_market_order_whose_fill_is_late_is_new_with_its_number_and_followed_by_it(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    fake.set_options(fill_seconds=0.6)
    made = order()
    told = done(swap.place(made))
    assert told.status is S.NEW
    time.sleep(0.6)
    answer = swap.look_up(replace(made, exchange_order_id=told.exchange_order_id))
    assert isinstance(answer, Found)
    assert answer.execution.status is S.FILLED


@pytest.mark.parametrize("market", ["swap", "spot"])
def test_an_order_that_was_taken_is_told_in_time_however_slow_the_questions_are(
    fake: FakeBingx, swap: BingxSwap, spot: BingxSpot, market: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, broker, made = (bingx_client, swap, order()) if market == "swap" else (bingx_spot, spot, on_spot())
    swap.prepare("BTCUSDT", D(1))
    monkeypatch.setattr(module, "FILL_PAUSES", (0.0,) * 20)
    monkeypatch.setattr(module, "FILL_SECONDS", 0.3)
    where = "GET */trade/order" if market == "swap" else "GET */trade/query"
    fake.fail_next("status", where, status=502, times=99)
    fake.set_options(engine_seconds=0.1)
    began = time.monotonic()
    told = done(broker.place(made))
    assert (told.status, len(told.exchange_order_id)) == (S.NEW, 19)
    assert time.monotonic() - began < 1.0


def test_an_account_that_does_not_keep_our_ids_takes_no_more_entries(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.set_options(keeps_client_ids=False)
    assert done(swap.place(order())).status is S.FILLED
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert "does not keep our order ids" in outcome.reason
    assert done(swap.place(order(side="SELL"))).status is S.FILLED  # the way out stays open
    assert len(fake.order_posts) == 2


def test_records_that_lag_are_not_taken_for_lost_ids(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.set_options(lookup_lag_seconds=0.4)
    assert done(swap.place(order())).status is S.NEW
    time.sleep(0.4)
    assert isinstance(swap.place(order()), Done)


# ---- what can go wrong with an order

LOST = ["reset", "close", "stall", "truncated"]


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("kind", LOST)
def test_a_lost_reply_is_unknown_and_the_look_up_tells(
    fake: FakeBingx, swap: BingxSwap, kind: str, executed: bool
) -> None:
    swap.prepare("BTCUSDT", D(1))
    fake.fail_next(kind, PLACE, executed=executed)
    made = order()
    assert isinstance(swap.place(made), Unknown)
    assert len(fake.order_posts) == 1
    answer = swap.look_up(made)
    assert isinstance(answer, Found if executed else NotFound)
    assert fake.amount() == (D("0.01") if executed else 0)


def test_a_reply_that_drips_is_unknown_when_the_time_is_over(fake: FakeBingx, swap: BingxSwap) -> None:
    swap.prepare("BTCUSDT", D(1))
    fake.fail_next("drip", PLACE, executed=True, seconds=0.05)
    began = time.monotonic()
    assert isinstance(swap.place(order()), Unknown)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_unknown(fake: FakeBingx, swap: BingxSwap, status: int) -> None:
    fake.fail_next("status", PLACE, status=status, executed=True)
    made = order()
    assert isinstance(swap.place(made), Unknown)
    assert isinstance(swap.look_up(made), Found)


@pytest.mark.parametrize("code", [80012, 80019, 100500, 101500, 109500, 109201, 31337])
def test_a_code_that_leaves_it_open_is_unknown(fake: FakeBingx, swap: BingxSwap, code: int) -> None:
    fake.fail_next("code", PLACE, code=code, msg="The current system is busy", executed=True)
    made = order()
    assert isinstance(swap.place(made), Unknown)
    assert isinstance(swap.look_up(made), Found)


def test_the_same_id_again_is_unknown_because_the_order_is_there(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order()
    done(swap.place(made))
    assert isinstance(swap.place(made), Unknown)
    assert fake.amount() == D("0.01")


def test_a_reply_about_another_order_is_unknown(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.fail_next("other_order", PLACE, executed=True)
    made = order()
    assert isinstance(swap.place(made), Unknown)
    assert isinstance(swap.look_up(made), Found)


def test_a_connection_that_is_refused_never_left(fake: FakeBingx, swap: BingxSwap) -> None:
    swap.prepare("BTCUSDT", D(1))
    fake.stop_listening()
    time.sleep(0.1)
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert outcome.never_left


def test_too_little_margin_is_refused(fake: FakeBingx, swap: BingxSwap) -> None:
    outcome = swap.place(order(quantity=D(100)))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.never_left) == ("101204", False)


def test_a_wrong_key_and_a_wrong_secret_are_refused(fake: FakeBingx) -> None:
    for key, secret, told in (
        ("other", API_SECRET, r"Incorrect apiKey \(100413\): is the API key what BingX gave\?"),
        (API_KEY, "other", r"Signature verification failed \(100001\): does the API secret belong to the key\?"),
    ):
        broker = BingxSwap(key, secret, demo=True, api_url=fake.url)
        with pytest.raises(BrokerError, match=told):
            broker.connect()


def test_a_clock_that_is_wrong_is_set_and_the_order_never_left(fake: FakeBingx, swap: BingxSwap) -> None:
    swap.prepare("BTCUSDT", D(1))
    swap._offset_ms = 60_000
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert (outcome.never_left, outcome.retry_after_seconds) == (True, 0)
    assert abs(swap._offset_ms) < 1000
    done(swap.place(order()))


def test_the_servers_clock_is_what_requests_go_by(fake: FakeBingx) -> None:
    fake.clock = lambda: time.time() + 3600
    broker = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
    broker.connect()
    assert broker.balances()


def test_a_mode_that_was_switched_is_read_again_and_the_order_never_left(fake: FakeBingx, swap: BingxSwap) -> None:
    swap.prepare("BTCUSDT", D(1))
    fake.set_options(hedge_mode=True)
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert (outcome.never_left, outcome.retry_after_seconds) == (True, 0)
    assert done(swap.place(order())).status is S.FILLED
    assert fake.held["BTC-USDT", "LONG"].quantity == D("0.01")
    assert fake.leverages["BTC-USDT", "LONG"] == 1  # each side has its own, in this mode


def test_a_server_that_is_slow_to_tell_the_mode_gets_no_late_order(
    fake: FakeBingx, swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bingx_client, "READY_WITHIN_SECONDS", 0.2)
    fake.fail_next("delay", "GET */marginType", seconds=0.3)
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    assert fake.order_posts == []


# ---- pauses


def test_a_closed_endpoint_is_left_alone_until_it_says_and_the_others_go_on(fake: FakeBingx, swap: BingxSwap) -> None:
    again = fake.now_ms() + 60_000
    fake.fail_next("code", "GET */user/balance", code=100410, msg=f"code:100410:… will be unblocked after {again}")
    with pytest.raises(BrokerError):
        swap.balances()
    fake.calls.clear()
    with pytest.raises(BrokerError, match=r"pause of (60|59) s"):
        swap.balances()
    assert fake.calls == []
    assert isinstance(swap.place(order()), Done)


@pytest.mark.parametrize("status", [418, 429])
def test_a_ban_keeps_everything_here_and_is_told_to_who_remembers_it(
    fake: FakeBingx, swap: BingxSwap, status: int
) -> None:
    told: list[tuple[float, str]] = []
    swap.on_pause = lambda seconds, path: told.append((seconds, path))
    swap.prepare("BTCUSDT", D(1))
    fake.fail_next("status", PLACE, status=status, headers=(("Retry-After", "30"),))
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert (outcome.never_left, outcome.retry_after_seconds) == (True, 30)
    assert told == [(30, "")]
    fake.calls.clear()
    again = swap.place(order())
    assert isinstance(again, Refused)
    assert again.never_left
    with pytest.raises(BrokerError, match="pause"):
        swap.positions()
    assert fake.calls == []


@pytest.mark.parametrize("said", ["", "soon", "nan", "inf", "-inf"])
def test_without_a_usable_word_of_how_long_it_is_five_minutes(fake: FakeBingx, swap: BingxSwap, said: str) -> None:
    headers = (("Retry-After", said),) if said else ()
    fake.fail_next("code", PLACE, code=100410, msg="rate limited", headers=headers)
    outcome = swap.place(order())
    assert isinstance(outcome, Refused)
    assert outcome.retry_after_seconds == 300
    assert 299 < swap.pause_seconds <= 300


def test_nobody_is_left_alone_for_longer_than_a_day(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.fail_next("status", PLACE, status=429, headers=(("Retry-After", "99999999"),))
    swap.place(order())
    assert swap.pause_seconds <= 86_400


def test_a_burst_is_spread_so_that_no_endpoint_is_closed(fake: FakeBingx, swap: BingxSwap) -> None:
    swap.prepare("BTCUSDT", D(1))
    made = [order() for _ in range(12)]
    with ThreadPoolExecutor(12) as threads:
        outcomes = list(threads.map(swap.place, made))
    assert all(isinstance(each, Done) for each in outcomes)
    assert fake.amount() == D("0.12")
    assert not any(call.banned or call.code == 100410 for call in fake.calls)


def test_a_process_reckons_with_the_calls_of_the_one_that_crashed_before_it(fake: FakeBingx) -> None:
    for _ in range(2):
        broker = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
        for _ in range(4):
            broker.positions()
    assert not any(call.code for call in fake.calls)


def test_an_order_whose_turn_would_come_too_late_never_left(
    fake: FakeBingx, swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap.prepare("BTCUSDT", D(1))
    monkeypatch.setattr(bingx_link, "PACE_SECONDS", 1.5)
    monkeypatch.setattr(bingx_link, "LONGEST_TURN_SECONDS", 0.5)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(swap.place, [order() for _ in range(8)]))
    late = [each for each in outcomes if isinstance(each, Refused)]
    assert len(late) == 3
    assert all(each.never_left for each in late)
    assert len(fake.order_posts) == 5


def test_ways_in_that_wait_for_their_turn_do_not_turn_a_way_out_away(
    fake: FakeBingx, swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(swap.place(order()))
    monkeypatch.setattr(bingx_link, "PACE_SECONDS", 0.8)
    monkeypatch.setattr(bingx_link, "LONGEST_TURN_SECONDS", 0.2)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(swap.place, [order() for _ in range(8)]))
    for late in (swap.place(order()), swap.place(stop())):
        assert isinstance(late, Refused)
        assert late.never_left
    assert done(swap.place(order(side="SELL"))).status is S.FILLED


def test_what_waited_for_its_turn_is_signed_when_it_leaves(
    fake: FakeBingx, swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bingx_link, "PACE_SECONDS", 0.6)
    for _ in range(6):
        swap.positions()
    asked = [int(call.params["timestamp"]) for call in fake.calls if call.path.endswith("/positions")]
    assert asked[5] - asked[4] > 300


# ---- looking up


def test_an_order_that_nobody_knows_is_not_found_and_a_failed_question_is_no_answer(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    assert swap.look_up(order()) == NotFound()
    for fault in ("reset", "truncated"):
        fake.fail_next(fault, "GET */trade/order")
        assert isinstance(swap.look_up(order()), NoAnswer)
    for code, text in ((100500, "order not exist"), (109414, "Request failed"), (100410, "rate limited")):
        fake.fail_next("code", "GET */trade/order", code=code, msg=text)
        assert isinstance(swap.look_up(order()), NoAnswer)


def test_an_answer_about_another_order_is_no_answer(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order()
    done(swap.place(made))
    fake.fail_next("other_order", "GET */trade/order")
    assert isinstance(swap.look_up(made), NoAnswer)


def test_cancelling_what_has_filled_tells_that_it_has(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order()
    done(swap.place(made))
    answer = swap.cancel(made)
    assert isinstance(answer, Found)
    assert answer.execution.status is S.FILLED


# ---- protection


def test_stop_and_target_wait_for_the_whole_position_and_end_with_it(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order()))
    both = [stop(62000, "TAKE_PROFIT"), stop(59000)]
    outcomes = swap.protect(both)
    assert [done(each).status for each in outcomes] == [S.NEW, S.NEW]
    assert [(o.type, o.stop_price, o.close_position) for o in fake.waiting] == [
        ("STOP_MARKET", D(59000), True), ("TAKE_PROFIT_MARKET", D(62000), True)]  # fmt: skip
    fake.set_price("BTC-USDT", 58900)
    assert fake.amount() == 0
    profit, loss = (
        replace(o, exchange_order_id=done(out).exchange_order_id) for o, out in zip(both, outcomes, strict=True)
    )
    answers = [swap.look_up(loss), swap.look_up(profit)]
    assert [a.execution.status for a in answers if isinstance(a, Found)] == [S.FILLED, S.CANCELED]


def test_a_stop_that_is_refused_keeps_the_target_here(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order()))
    outcomes = swap.protect([stop(70000, "TAKE_PROFIT"), stop(61000)])
    assert all(isinstance(each, Refused) for each in outcomes)
    assert fake.waiting == []


def test_a_stop_for_a_position_that_is_not_seen_yet_may_be_sent_again(fake: FakeBingx, swap: BingxSwap) -> None:
    outcomes = swap.protect([stop(), stop(62000, "TAKE_PROFIT")])
    assert [isinstance(each, Refused) and each.never_left for each in outcomes] == [True, True]
    assert len(fake.order_posts) == 1
    exit_ = swap.place(order(side="SELL"))
    assert isinstance(exit_, Refused)
    assert not exit_.never_left


@pytest.mark.parametrize("hedge_mode", [False, True])
@pytest.mark.parametrize("kind", LOST)
def test_a_stop_whose_reply_was_lost_is_found_by_what_it_does(fake: FakeBingx, kind: str, hedge_mode: bool) -> None:
    fake.set_options(hedge_mode=hedge_mode)
    swap = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
    swap.connect()
    done(swap.place(order()))
    made = stop()
    fake.fail_next(kind, PLACE, executed=True)
    assert isinstance(swap.protect([made])[0], Unknown)
    answer = swap.look_up(made)
    assert isinstance(answer, Found)
    assert answer.execution.exchange_order_id == str(fake.waiting[0].order_id)
    assert isinstance(swap.cancel(made), Found)
    assert fake.waiting == []


def test_a_stop_that_was_lost_and_never_arrived_is_not_found(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order()))
    fake.fail_next("reset", PLACE)
    made = stop()
    assert isinstance(swap.place(made), Unknown)
    assert swap.look_up(made) == NotFound()


def replaced(fake: FakeBingx, swap: BingxSwap, *of: Any) -> tuple[Order, Order]:
    """A stop or target that never arrived, and the one that was sent in its place."""
    first, second = stop(*of), stop(*of)
    fake.fail_next("reset", PLACE)
    assert isinstance(swap.place(first), Unknown)
    return first, replace(second, exchange_order_id=done(swap.place(second)).exchange_order_id)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_stop_that_never_arrived_is_not_taken_for_the_one_that_was_sent_in_its_place(
    fake: FakeBingx, swap: BingxSwap, restarted: bool
) -> None:
    done(swap.place(order()))
    first, second = replaced(fake, swap)
    if restarted:
        swap = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
        assert isinstance(swap.look_up(second), Found)
    assert swap.look_up(first) == NotFound()
    fake.set_price("BTC-USDT", 58000)
    assert swap.look_up(first) == NotFound()
    answer = swap.look_up(second)
    assert isinstance(answer, Found)
    assert answer.execution.status is S.FILLED


@pytest.mark.parametrize("looked_at", ["the lost one", "the one in its place"])
def test_of_many_stops_the_last_are_known_and_those_that_are_looked_at(
    fake: FakeBingx, monkeypatch: pytest.MonkeyPatch, looked_at: str
) -> None:
    """What is in doubt is looked for again and again, and what waits is followed."""
    monkeypatch.setattr(bingx_client, "MOST_STOPS_KNOWN", 3)
    swap = BingxSwap(API_KEY, API_SECRET, demo=True, api_url=fake.url)
    swap.connect()
    done(swap.place(order()))
    first, second = replaced(fake, swap)
    for number in range(3):
        swap.look_up(first if looked_at == "the lost one" else second)
        target = stop(62000 + number, "TAKE_PROFIT")
        swap.cancel(replace(target, exchange_order_id=done(swap.place(target)).exchange_order_id))
    assert len(swap._stops) == 3
    assert swap.look_up(first) == NotFound()
    newest, _ = replaced(fake, swap, 65000, "TAKE_PROFIT")
    assert swap.look_up(newest) == NotFound()


def test_a_stop_that_was_lost_and_has_been_triggered_meanwhile_is_found_as_filled(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    done(swap.place(order()))
    fake.fail_next("reset", PLACE, executed=True)
    made = stop()
    swap.place(made)
    fake.set_price("BTC-USDT", 58000)
    answer = swap.look_up(made)
    assert isinstance(answer, Found)
    assert (answer.execution.status, answer.execution.executed_quantity) == (S.FILLED, D("0.01"))


@pytest.mark.parametrize("lost", [False, True])
def test_a_stop_that_becomes_another_order_is_told_by_what_that_one_did(
    fake: FakeBingx, swap: BingxSwap, lost: bool
) -> None:
    fake.set_options(triggers_another=True)
    done(swap.place(order()))
    made = stop()
    if lost:
        fake.fail_next("reset", PLACE, executed=True)
        swap.place(made)
    else:
        made = replace(made, exchange_order_id=done(swap.place(made)).exchange_order_id)
    fake.set_price("BTC-USDT", 58000)
    answer = swap.look_up(made)
    assert isinstance(answer, Found)
    assert (answer.execution.status, answer.execution.executed_quote) == (S.FILLED, D(580))
    fake.orders.pop()  # what it became is not listed
    assert isinstance(swap.look_up(made), NoAnswer)


@pytest.mark.parametrize("listed_by_update", [False, True])
@pytest.mark.parametrize("known_since", ["placed", "triggered"])
def test_a_stop_that_waited_for_weeks_is_told_by_what_it_became(
    fake: FakeBingx, swap: BingxSwap, known_since: str, listed_by_update: bool
) -> None:
    fake.set_options(triggers_another=True, listed_by_update=listed_by_update)
    done(swap.place(order()))
    made = stop()
    made = replace(made, exchange_order_id=done(swap.place(made)).exchange_order_id)
    fake.orders[-1].time_ms -= 20 * 86_400_000
    fake.set_price("BTC-USDT", 58000)
    fake.orders[-1].time_ms = fake.now_ms()  # made when it was triggered
    if known_since == "placed":
        fake.orders[-2].update_ms = fake.orders[-2].time_ms  # BingX does not say when it was triggered
    answer = swap.look_up(made)
    assert isinstance(answer, Found)
    assert (answer.execution.status, answer.execution.executed_quote) == (S.FILLED, D(580))


def test_another_stop_at_another_price_or_of_the_past_is_not_taken_for_ours(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order()))
    done(swap.place(stop(58000)))
    assert swap.look_up(stop(59000)) == NotFound()
    time.sleep(0.6)
    fake.set_price("BTC-USDT", 57000)  # made before ours was sent, and done just now
    assert swap.look_up(stop(58000)) == NotFound()


def test_position_sl_order_already_exists_is_a_reason_to_look(fake: FakeBingx, swap: BingxSwap) -> None:
    done(swap.place(order()))
    his = {"symbol": "BTC-USDT", "side": "SELL", "positionSide": "BOTH", "type": "STOP_MARKET", "stopPrice": "59000",
           "closePosition": "true"}  # fmt: skip
    fake.place_swap(his)
    made = stop()
    assert isinstance(swap.place(made), Unknown)
    assert isinstance(swap.look_up(made), Found)
    assert len(fake.waiting) == 1


def test_a_trailing_stop_is_not_offered(swap: BingxSwap) -> None:
    assert "TRAILING_STOP" not in swap.symbol_rules("BTCUSDT").order_types
    assert {"STOP", "TAKE_PROFIT"} <= swap.symbol_rules("BTCUSDT").order_types


# ---- the account and the market


def test_in_the_demo_the_margin_is_play_money_and_told_so(fake: FakeBingx, swap: BingxSwap) -> None:
    assert swap.account == Account("BINGX", Market.FUTURES)
    assert swap.balances() == {"VST": Balance(D(10_000))}
    assert swap.symbol_rules("BTCUSDT").quote_asset == "VST"
    live = BingxSwap(API_KEY, API_SECRET, demo=False, api_url=fake.url)
    assert live.balances() == {}
    assert live.symbol_rules("BTCUSDT").quote_asset == "USDT"


def test_prices_of_one_and_of_several(fake: FakeBingx, swap: BingxSwap) -> None:
    assert swap.current_price("BTCUSDT") == 60000
    assert swap.current_prices(["BTCUSDT", "ETHUSDT"]) == {"BTCUSDT": 60000, "ETHUSDT": 3000}
    for wanted in (["NOPEUSDT"], ["BTCUSDT", "NOPEUSDT"]):
        with pytest.raises(UnknownSymbol):
            swap.current_prices(wanted)


def test_a_contract_without_a_price_does_not_hide_the_prices_of_the_others(
    swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = {"NEW-USDT": "", "OLD-USDT": "0", "BTC-USDT": "60000", "ETH-USDT": "3000"}
    rows = [{"symbol": symbol, "price": price} for symbol, price in prices.items()]
    route = (lambda fake, params: rows, True, {"symbol"})
    monkeypatch.setitem(fake_bingx.ROUTES, "GET /openApi/swap/v1/ticker/price", route)
    assert swap.current_prices(["BTCUSDT", "ETHUSDT"]) == {"BTCUSDT": 60000, "ETHUSDT": 3000}
    for unpriced in ("NEWUSDT", "OLDUSDT"):
        with pytest.raises(BrokerError, match="no usable price"):
            swap.current_prices(["BTCUSDT", unpriced])


@pytest.mark.parametrize("symbol", ["NOPEUSDT", "BTCEUR"])
def test_a_symbol_that_is_not_traded_is_told_so(swap: BingxSwap, spot: BingxSpot, symbol: str) -> None:
    for broker in (swap, spot):
        with pytest.raises(UnknownSymbol):
            broker.symbol_rules(symbol)


@pytest.mark.parametrize(("code", "status"), [(109500, 200), (109425, 502)])
def test_a_server_in_trouble_is_no_word_about_a_symbol(
    fake: FakeBingx, swap: BingxSwap, code: int, status: int
) -> None:
    msg = "Account Service Unavailable, err:symbol not exist"
    fake.fail_next("code", "GET */contracts", code=code, msg=msg, status=status)
    with pytest.raises(BrokerError) as caught:
        swap.symbol_rules("BTCUSDT")
    assert not isinstance(caught.value, UnknownSymbol)


@pytest.mark.parametrize(("hedge_mode", "one_way_side"), [(True, "BOTH"), (False, "BOTH"), (False, "LONG")])
def test_positions_are_told_by_side_in_every_mode(
    fake: FakeBingx, swap: BingxSwap, hedge_mode: bool, one_way_side: str
) -> None:
    fake.set_options(hedge_mode=hedge_mode, one_way_side=one_way_side)
    fake.set_position("BTC-USDT", "SHORT", "0.02", 61000)
    assert swap.positions() == [HeldThere("BTCUSDT", "SHORT", D("0.02"), D(61000))]


def test_trades_by_hand_are_told_by_orders(fake: FakeBingx, swap: BingxSwap) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    done(swap.place(order()))
    (told,) = swap.trades_since("BTCUSDT", before)
    assert (told.side, told.position_side, told.quantity, told.quote) == (Side.BUY, "", D("0.01"), D(600))
    assert told.fees == (Fee("VST", D("0.3")),)
    assert swap.trades_since("BTCUSDT", datetime.now(UTC) + timedelta(seconds=5)) == []
    assert len(swap.trades_since("BTCUSDT", before - timedelta(days=30))) == 1


def test_of_a_contract_in_usdc_the_fee_is_in_usdc(fake: FakeBingx) -> None:
    fake.contracts["BTC-USDC"] = {**fake.contracts["BTC-USDT"], "symbol": "BTC-USDC", "currency": "USDC"}
    fake.prices["BTC-USDC"] = D(60000)
    fake.options.margin_asset = "USDC"
    live = BingxSwap(API_KEY, API_SECRET, demo=False, api_url=fake.url)
    before = datetime.now(UTC) - timedelta(seconds=1)
    fake.set_options(fill_seconds=0.2)  # so late that it is asked for by BingX's number
    made = replace(order(), symbol="BTCUSDC")
    done(live.place(replace(made, rules=live.symbol_rules("BTCUSDC"))))
    time.sleep(0.2)
    (told,) = live.trades_since("BTCUSDC", before)
    assert [fee.asset for fee in told.fees] == ["USDC"]


@pytest.mark.parametrize("listed_by_update", [False, True])
def test_an_order_that_was_made_before_and_trades_now_is_told(
    fake: FakeBingx, swap: BingxSwap, listed_by_update: bool
) -> None:
    fake.set_options(listed_by_update=listed_by_update)
    done(swap.place(order("LIMIT", price=D(50000))))
    fake.orders[0].time_ms -= 3600_000
    since = datetime.now(UTC)
    fake.set_price("BTC-USDT", 49000)
    assert [each.quantity for each in swap.trades_since("BTCUSDT", since - timedelta(seconds=1))] == [D("0.01")]


def test_orders_of_kinds_and_states_that_we_never_heard_of_do_not_hide_the_trades(
    fake: FakeBingx, swap: BingxSwap
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    done(swap.place(order()))
    fake.orders.append(replace(fake.orders[0], order_id=8, status="TRIGGERED", type="TRIGGER_MARKET", executed=D(0)))
    fake.orders.append(replace(fake.orders[0], order_id=9, status="LIQUIDATED", type="ADL"))
    assert {each.exchange_order_id for each in swap.trades_since("BTCUSDT", before)} == {
        str(fake.orders[0].order_id), "9"}  # fmt: skip


def test_a_list_that_is_full_is_asked_for_in_halves(
    fake: FakeBingx, swap: BingxSwap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bingx_client, "MOST_ORDERS_LISTED", 2)
    since = datetime.now(UTC) - timedelta(seconds=1)
    for _ in range(5):
        done(swap.place(order()))
        time.sleep(0.01)
    assert len(swap.trades_since("BTCUSDT", since)) == 5


def test_open_orders_are_told_and_a_stray_is_cancelled(fake: FakeBingx, swap: BingxSwap) -> None:
    made = order("LIMIT", price=D(50000))
    done(swap.place(made))
    (found,) = swap.open_orders()
    assert (found.symbol, found.client_order_id, found.is_conditional) == ("BTCUSDT", made.client_order_id, False)
    swap.cancel_stray(found)
    assert fake.waiting == []
    swap.cancel_stray(found)  # gone already: fine


@pytest.mark.parametrize("question", ["balances", "positions", "open_orders"])
@pytest.mark.parametrize("fault", ["truncated", "other_order", "reset"])
def test_an_answer_that_is_not_usable_is_a_broker_error(
    fake: FakeBingx, swap: BingxSwap, question: str, fault: str
) -> None:
    fake.fail_next(fault, "GET *")
    with pytest.raises(BrokerError):
        getattr(swap, question)()


def test_nothing_secret_is_told_in_an_error_or_a_repr(fake: FakeBingx, swap: BingxSwap) -> None:
    fake.fail_next("code", PLACE, code=31337, msg=f"what is {API_KEY} {API_SECRET}?")
    outcome = swap.place(order())
    for text in (repr(outcome), repr(swap)):
        assert API_KEY not in text
        assert API_SECRET not in text


# ---- spot


def test_a_spot_buy_by_amount_is_told_with_the_fee_taken_in_coins(fake: FakeBingx, spot: BingxSpot) -> None:
    told = done(spot.place(on_spot(quantity=None, amount=D(600))))
    assert (told.status, told.executed_quantity, told.executed_quote) == (S.FILLED, D("0.01"), D(600))
    assert told.fees == (Fee("BTC", D("0.00001")),)
    assert spot.balances()["BTC"].free == D("0.00999")
    assert spot.account == Account("BINGX", Market.SPOT)
    assert spot.positions() == ()


def test_a_spot_limit_order_rests_is_found_and_cancelled(fake: FakeBingx, spot: BingxSpot) -> None:
    made = on_spot("LIMIT", price=D(50000))
    assert done(spot.place(made)).status is S.NEW
    assert spot.open_orders()[0].client_order_id == made.client_order_id
    answer = spot.cancel(made)
    assert isinstance(answer, Found)
    assert answer.execution.status is S.CANCELED


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("kind", LOST)
def test_a_lost_reply_on_spot_is_unknown_and_the_look_up_tells(
    fake: FakeBingx, spot: BingxSpot, kind: str, executed: bool
) -> None:
    fake.fail_next(kind, executed=executed)
    made = on_spot()
    assert isinstance(spot.place(made), Unknown)
    assert isinstance(spot.look_up(made), Found if executed else NotFound)
    assert len(fake.order_posts) == 1


def test_a_spot_account_that_does_not_keep_our_ids_takes_no_more_entries(fake: FakeBingx, spot: BingxSpot) -> None:
    fake.set_options(keeps_client_ids=False)
    assert done(spot.place(on_spot())).status is S.FILLED
    outcome = spot.place(on_spot())
    assert isinstance(outcome, Refused)
    assert "does not keep our order ids" in outcome.reason
    assert done(spot.place(on_spot(side="SELL", quantity=D("0.009")))).status is S.FILLED  # the way out stays open
    assert len(fake.order_posts) == 2


def test_spot_records_that_lag_are_not_taken_for_lost_ids(fake: FakeBingx, spot: BingxSpot) -> None:
    fake.set_options(lookup_lag_seconds=0.4)
    assert done(spot.place(on_spot())).status is S.NEW
    assert isinstance(spot.place(on_spot()), Done)


def test_a_stray_on_spot_that_is_gone_already_is_fine(fake: FakeBingx, spot: BingxSpot) -> None:
    made = on_spot("LIMIT", price=D(50000))
    done(spot.place(made))
    (found,) = spot.open_orders()
    for _ in range(2):
        spot.cancel_stray(found)
    assert fake.waiting == []
    fake.fail_next("code", "POST */cancel", code=100500, msg="busy")
    with pytest.raises(BrokerError):
        spot.cancel_stray(found)


@pytest.mark.parametrize(("path", "most"), [("account/balance", 5), ("trade/cancel", 5), ("trade/myTrades", 5)])
def test_on_spot_some_questions_are_allowed_half_as_often(spot: BingxSpot, path: str, most: int) -> None:
    pace = spot._pace_of("GET", f"/openApi/spot/v1/{path}")
    assert pace._times.maxlen == most


def test_too_little_on_spot_is_refused(fake: FakeBingx, spot: BingxSpot) -> None:
    outcome = spot.place(on_spot(side="SELL"))
    assert isinstance(outcome, Refused)
    assert outcome.code == "100202"


def test_spot_trades_that_are_not_listed_yet_leave_the_order_to_be_followed(fake: FakeBingx, spot: BingxSpot) -> None:
    fake.fail_next("code", "GET */myTrades", code=100500, msg="busy", times=9)
    made = on_spot()
    told = done(spot.place(made))
    assert (told.status, bool(told.exchange_order_id)) == (S.NEW, True)
    fake.faults.clear()
    answer = spot.look_up(replace(made, exchange_order_id=told.exchange_order_id))
    assert isinstance(answer, Found)
    assert answer.execution.fees


def test_a_ban_keeps_spot_orders_here(fake: FakeBingx, spot: BingxSpot) -> None:
    fake.fail_next("status", status=429, headers=(("Retry-After", "30"),))
    spot.place(on_spot())
    fake.calls.clear()
    outcome = spot.place(on_spot())
    assert isinstance(outcome, Refused)
    assert outcome.never_left
    assert fake.calls == []


@pytest.mark.parametrize("market", ["swap", "spot"])
def test_an_order_of_another_number_is_not_ours(fake: FakeBingx, swap: BingxSwap, spot: BingxSpot, market: str) -> None:
    broker, made = (swap, order()) if market == "swap" else (spot, on_spot("LIMIT", price=D(50000)))
    told = done(broker.place(made))
    fake.orders[0].client_id = ""  # nothing else that could give it away
    number = fake.orders[0].order_id
    fake._find = lambda *_: replace(fake.orders[0], order_id=number + 1)  # type: ignore[method-assign]
    assert isinstance(broker.look_up(replace(made, exchange_order_id=told.exchange_order_id)), NoAnswer)


def later(made: Order) -> Order:
    """The same, sent three hours ago."""
    return replace(made, sent_at=datetime.now(UTC) - timedelta(hours=3))


def test_after_two_hours_an_order_is_not_absent_only_because_its_id_is_forgotten(
    fake: FakeBingx, spot: BingxSpot
) -> None:
    made = on_spot()
    fake.fail_next("reset", executed=True)
    assert isinstance(spot.place(made), Unknown)
    fake.orders[0].time_ms -= 3 * 3600 * 1000
    answer = spot.look_up(later(made))
    assert isinstance(answer, Found)
    for shown in ("", "g*****x"):  # listed without it, or blotted out, as the documentation shows ids: nobody can tell
        fake.orders[0].client_id = shown
        assert isinstance(spot.look_up(later(made)), NoAnswer)
    fake.orders[0].side = "SELL"  # nothing alike: that proves it
    assert spot.look_up(later(made)) == NotFound()


def test_among_too_many_orders_of_that_time_nobody_can_tell(
    fake: FakeBingx, spot: BingxSpot, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = later(on_spot())
    monkeypatch.setattr(bingx_spot, "MOST_ORDERS_LISTED", 1)
    done(spot.place(on_spot(side="BUY")))
    fake.orders[0].time_ms -= 3 * 3600 * 1000
    fake.orders[0].side = "SELL"  # nothing alike, but the list is full
    assert isinstance(spot.look_up(made), NoAnswer)


def test_an_order_of_another_time_without_an_id_does_not_keep_ours_in_doubt(fake: FakeBingx, spot: BingxSpot) -> None:
    done(spot.place(on_spot("LIMIT", price=D(50000))))  # still open, and listed whatever is asked for
    fake.orders[0].client_id = ""
    assert spot.look_up(later(on_spot("LIMIT", price=D(50000)))) == NotFound()


def test_spot_protection_is_not_offered(spot: BingxSpot) -> None:
    assert spot.symbol_rules("BTCUSDT").order_types == {"MARKET", "LIMIT"}
    assert isinstance(spot.protect([stop()])[0], Refused)


def test_spot_trades_and_prices(fake: FakeBingx, spot: BingxSpot) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    done(spot.place(on_spot()))
    (told,) = spot.trades_since("BTCUSDT", before)
    assert isinstance(told, TradedThere)
    assert (told.side, told.quantity, told.fees) == (Side.BUY, D("0.01"), (Fee("BTC", D("0.00001")),))
    assert spot.current_prices(["BTCUSDT"]) == {"BTCUSDT": 60000}


# ---- the fake is as strict as BingX


class Bare:
    """Signs and sends, hides nothing."""

    def __init__(self, fake: FakeBingx) -> None:
        self.fake, self.http = fake, Http(fake.url)

    def ask(
        self, method: str, path: str, *, secret: str | None = API_SECRET, key: str = API_KEY, **more: str
    ) -> tuple[Any, str]:
        stamped = {"timestamp": str(self.fake.now_ms())} | more
        target = f"{path}?{query_of(stamped, secret)}"
        reply = self.http.ask(method, target, seconds=2, headers={"X-BX-APIKEY": key})
        assert isinstance(reply, Answered)
        assert reply.status == 200  # errors, too
        body = json.loads(reply.body)
        return body["code"], body["msg"]

    def order(self, **more: str) -> tuple[Any, str]:
        given = {"symbol": "BTC-USDT", "side": "BUY", "positionSide": "BOTH", "type": "MARKET", "quantity": "0.01"}
        parameters = {name: value for name, value in (given | more).items() if value}
        return self.ask("POST", bingx_client.ORDER_PATH, **parameters)


def test_the_fake_checks_key_signature_and_time(fake: FakeBingx) -> None:
    bare, path = Bare(fake), "/openApi/swap/v3/user/balance"
    fake.set_options(limits=False)
    assert bare.ask("GET", path)[0] == 0
    assert bare.ask("GET", path, key="other")[0] == 100413
    assert bare.ask("GET", path, secret="other")[0] == 100001
    assert bare.ask("GET", path, secret=None)[0] == 100412
    for seconds, code in ((-4, 0), (4, 0), (-6, 100421), (6, 100421)):
        assert bare.ask("GET", path, timestamp=str(fake.now_ms() + seconds * 1000))[0] == code


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, 0),
        ({"quantity": "0.00005"}, 80014),
        ({"quantity": ""}, 80014),
        ({"quantity": "1e-2"}, 80014),
        ({"type": "LIMIT"}, 80014),
        ({"quantity": "0.0001", "type": "LIMIT", "price": "100"}, 101400),
        ({"quantity": "100"}, 101204),
        ({"symbol": "NOPE-USDT"}, 101400),
        ({"symbol": "BTCUSDT"}, 101400),
        ({"positionSide": ""}, 109400),
        ({"positionSide": "LONG"}, 109400),
        ({"reduceOnly": "true", "side": "SELL"}, 101205),
        ({"type": "STOP_MARKET", "stopPrice": "100", "closePosition": "true", "quantity": "", "side": "SELL"}, 101205),
        ({"type": "STOP_MARKET", "stopPrice": "100", "closePosition": "true", "side": "SELL"}, 110400),
        ({"type": "STOP_MARKET", "stopPrice": "100", "clientOrderID": "a"}, 80014),
        ({"clientOrderId": "misspelt"}, 100400),
        ({"clientOrderID": "x" * 41}, 80014),
        ({"timeInForce": "GTX"}, 80014),
    ],
)
def test_the_fake_refuses_what_bingx_refuses(fake: FakeBingx, more: dict[str, str], code: int) -> None:
    assert Bare(fake).order(**more)[0] == code


def test_the_fake_keeps_client_ids_in_small_letters_and_each_once(fake: FakeBingx) -> None:
    bare = Bare(fake)
    assert bare.order(clientOrderID="MyId")[0] == 0
    assert bare.order(clientOrderID="myid") == (101481, "clientOrderID cannot be repeated")
    assert fake.orders[0].client_id == "myid"
    assert fake.posts_by_client_id == {"MyId": 1, "myid": 1}


def test_the_fake_closes_an_endpoint_that_is_called_too_often(fake: FakeBingx) -> None:
    fake.set_options(second=1.0)
    bare = Bare(fake)
    codes = [bare.ask("GET", "/openApi/swap/v3/user/balance")[0] for _ in range(7)]
    assert codes == [0, 0, 0, 0, 0, 100410, 100410]
    assert fake.calls[-1].banned
    assert bare.ask("GET", "/openApi/swap/v2/user/positions")[0] == 0


def test_the_demo_and_the_real_exchange_are_two_servers() -> None:
    assert bingx_link.DEMO_URL != bingx_link.LIVE_URL
    for demo, host in ((True, "open-api-vst.bingx.com"), (False, "open-api.bingx.com")):
        assert BingxSwap("k", "s", demo=demo)._http._host == host
