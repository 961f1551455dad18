"""What FlatTrade leaves in doubt, and what money must not hang on: tags, days, the order of its rows, odd replies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_flattrade import APP_KEY, APP_SECRET, NO_DATA, UID, FakeFlatTrade
from shares import a_client, a_limit, a_sale, an_order, done, now, refused

from broker import BrokerError, Found, NoAnswer, NotFound, Unknown
from flattrade_client import FlatTradeClient
from flattrade_link import NeverLeft, Pace
from flattrade_orders import Meaning, could_be, execution_of, free_money, meaning_of
from flattrade_token import FlatTradeLogin
from models import Order, OrderStatus, RestsThere
from reply_values import BadReply

D = Decimal
S = OrderStatus


@pytest.fixture
def fake() -> Iterator[FakeFlatTrade]:
    with FakeFlatTrade() as one:
        yield one


@pytest.fixture
def client(fake: FakeFlatTrade, tmp_path: Path) -> FlatTradeClient:
    return a_client(fake, tmp_path)


def lost(client: FlatTradeClient, fake: FakeFlatTrade, order: Order) -> Order:
    """Placed, and nobody heard of it."""
    fake.fail_next("close", executed=True)
    assert isinstance(client.place(order), Unknown)
    return order


def found(client: FlatTradeClient, order: Order) -> OrderStatus:
    answer = client.look_up(order)
    assert isinstance(answer, Found), answer
    return answer.execution.status


# --- tags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [str.upper, lambda tag: tag[:20], lambda tag: f" {tag[:16]} "])
def test_an_order_is_known_by_a_tag_that_was_cut_off_or_spelled_otherwise(
    client: FlatTradeClient, fake: FakeFlatTrade, kept: Any
) -> None:
    fake.keep_tag, fake.exchange_seconds = kept, 0
    assert found(client, lost(client, fake, an_order())) is S.FILLED
    assert done(client.place(an_order())).execution.status is S.FILLED
    assert found(client, lost(client, fake, a_limit("1400"))) is S.NEW


@pytest.mark.parametrize("kept", [lambda tag: "", lambda tag: tag[:15]])
def test_an_order_without_its_tag_that_may_be_ours_keeps_ours_from_being_proven_absent(
    client: FlatTradeClient, fake: FakeFlatTrade, kept: Any
) -> None:
    fake.keep_tag = kept
    order = lost(client, fake, an_order())
    answer = client.look_up(order)
    assert isinstance(answer, NoAnswer)
    assert answer.for_long
    assert "26112100000001" in answer.reason
    assert isinstance(client.look_up(an_order(quantity=D(11))), NotFound)
    assert isinstance(client.look_up(a_sale()), NotFound)
    assert isinstance(client.look_up(an_order(symbol="M&M")), NotFound)


@pytest.mark.parametrize(
    ("change", "may_be"),
    [
        ({}, True), ({"remarks": "by hand"}, False), ({"remarks": "ghsomethingelse"}, False), ({"remarks": None}, True),
        ({"qty": "11"}, False), ({"qty": None}, True), ({"trantype": "S"}, False), ({"exch": "BSE"}, False),
        ({"norentm": "09:58:59 20-11-2026"}, False), ({"norentm": "09:59:01 20-11-2026"}, True),
        ({"norentm": "10:30:00 20-11-2026"}, True), ({"norentm": "soon"}, True),
    ],
)  # fmt: skip
def test_only_an_order_of_the_same_share_side_size_and_time_may_be_ours(change: dict[str, Any], may_be: bool) -> None:
    order = an_order(sent_at=datetime(2026, 11, 20, 4, 30, tzinfo=UTC))  # 10:00 IST
    row = {"exch": "NSE", "tsym": "CIPLA-EQ", "trantype": "B", "qty": "10", "remarks": "", "norenordno": "1",
           "norentm": "10:00:02 20-11-2026"}  # fmt: skip
    assert could_be(order, row | change) is may_be


# --- one total time ---------------------------------------------------------------------------------------------------


def test_an_order_whose_price_took_too_long_does_not_leave_any_more(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    """Who waits for it would have given it up by then, and begun to prove that it is not there."""
    client.seconds = 0.5
    for endpoint in ("SearchScrip", "GetQuotes"):
        fake.fail_next("delay", endpoint, seconds=0.35)
    assert refused(client.place(an_order())).never_left
    assert fake.asked("PlaceOrder") == []


def test_an_order_has_only_what_its_price_has_left_of_the_time(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.seconds = 0.6
    fake.fail_next("delay", "GetQuotes", seconds=0.4)
    fake.fail_next("stall", executed=True)
    began = time.monotonic()
    assert isinstance(client.place(an_order()), Unknown)
    assert time.monotonic() - began < 0.9


def test_an_order_is_followed_no_longer_than_anybody_waits(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.symbol_rules("CIPLA")
    client.seconds, fake.exchange_seconds = 0.3, 5
    began = time.monotonic()
    assert done(client.place(an_order())).execution.status is S.NEW
    assert time.monotonic() - began < 0.8


# --- the day ----------------------------------------------------------------------------------------------------------


def test_a_history_that_is_not_there_does_not_end_an_order_that_the_book_lists(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    order = a_limit("1400")
    known = replace(order, exchange_order_id=done(client.place(order)).execution.exchange_order_id)
    fake.fail_next("not_ok", "SingleOrdHist", text=NO_DATA)
    assert found(client, known) is S.NEW
    fake.new_day()
    assert isinstance(client.look_up(known), NotFound)


def test_an_order_of_another_day_waits_no_more_and_keeps_what_was_told_of_it(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    sent_at = now() - timedelta(days=1)
    told = {"executed_quantity": D(4), "executed_quote": D(6000), "status": S.PARTIALLY_FILLED}
    answer = client.look_up(an_order(sent_at=sent_at, exchange_order_id="7", **told))
    assert isinstance(answer, Found)
    execution = answer.execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (S.CANCELED, D(4), D(6000))
    assert "its reports" in execution.note


def test_what_was_sent_before_five_in_the_morning_is_of_another_day(fake: FakeFlatTrade, tmp_path: Path) -> None:
    """The order book may have been cleared meanwhile, on the same date."""
    at = [datetime(2026, 11, 20, 23, 29, tzinfo=UTC)]  # 04:59 IST
    client = a_client(fake, tmp_path, lambda: at[0])
    order = an_order(sent_at=at[0])
    assert isinstance(client.look_up(order), NotFound)
    at[0] += timedelta(minutes=2)
    client.login.begin()
    client.login.finish(fake.log_in())
    assert isinstance(client.look_up(order), NoAnswer)


# --- rows and words ---------------------------------------------------------------------------------------------------


def a_row(order: Order, status: str, report: str, **more: str) -> dict[str, str]:
    told = {"exch": "NSE", "tsym": "CIPLA-EQ", "norenordno": "1", "trantype": "B", "qty": "10"}
    return told | {"status": status, "rpt": report, "remarks": order.client_order_id} | more


@pytest.mark.parametrize("report", ["CancelRejected", "ReplaceRejected", "MODREJECTED"])
def test_a_cancel_that_was_refused_is_not_the_end_of_its_order(report: str) -> None:
    order = an_order()
    waits, refused_change = a_row(order, "OPEN", "New"), a_row(order, "REJECTED", report, rejreason="too late")
    filled = a_row(order, "COMPLETE", "Fill", fillshares="10", avgprc="1500")
    assert execution_of(order, [refused_change, waits]).status is S.NEW
    assert execution_of(order, [refused_change]).status is S.NEW
    assert execution_of(order, [refused_change, filled, waits]).status is S.FILLED
    assert execution_of(order, [a_row(order, "REJECTED", "Rejected"), waits]).status is S.REJECTED


def test_a_word_that_nobody_knows_does_not_hide_an_end_that_is_clear() -> None:
    order = an_order()
    odd = a_row(order, "CANCEL_PENDING", "PendingCancel")
    filled = a_row(order, "COMPLETE", "Fill", fillshares="10", avgprc="1500")
    assert execution_of(order, [filled, odd]).status is S.FILLED
    with pytest.raises(BadReply, match="CANCEL_PENDING"):
        execution_of(order, [odd, a_row(order, "OPEN", "New")])


def test_an_order_that_its_owner_made_smaller_ends_with_what_it_got() -> None:
    order = an_order()
    execution = execution_of(order, [a_row(order, "COMPLETE", "Fill", qty="6", fillshares="6", avgprc="1500")])
    assert (execution.status, execution.executed_quantity) == (S.CANCELED, D(6))
    with pytest.raises(BadReply):
        execution_of(order, [a_row(order, "COMPLETE", "Fill", qty="10", fillshares="6", avgprc="1500")])


@pytest.mark.parametrize("emsg", ["Server Timeout :  ", "something new"])
def test_a_refusal_that_comes_as_a_list_is_no_empty_book(
    client: FlatTradeClient, fake: FakeFlatTrade, emsg: str
) -> None:
    fake.fail_next("garbage", "OrderBook", text=f'[{{"stat":"Not_Ok","emsg":"{emsg}"}}]')
    assert isinstance(client.look_up(an_order()), NoAnswer)
    fake.fail_next("garbage", "OrderBook", text='[{"stat":"Not_Ok","emsg":"no data"}]')
    assert isinstance(client.look_up(an_order()), NotFound)


@pytest.mark.parametrize("emsg", ["RED:RULE: order value exceeds limit", "quantity exceeds limit 100"])
def test_another_limit_than_that_of_requests_is_no_reason_to_send_it_again(emsg: str) -> None:
    assert meaning_of(emsg) is Meaning.UNCLEAR


def test_what_comes_with_an_error_of_the_server_is_no_answer(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.fail_next("json", text='{"stat":"Ok","norenordno":"1"}', status=502)
    assert isinstance(client.place(an_order()), Unknown)
    fake.fail_next("json", "OrderBook", text="[]", status=502)
    assert isinstance(client.look_up(an_order()), NoAnswer)


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_not_cancelled(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    order = an_order()
    number = done(client.place(order)).execution.exchange_order_id
    answer = client.cancel(replace(order, exchange_order_id=number))
    assert isinstance(answer, Found)
    assert answer.execution.status is S.FILLED
    assert fake.asked("CancelOrder") == []


def test_a_cancel_whose_reply_is_lost_is_looked_up(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    for executed, status in ((False, S.NEW), (True, S.CANCELED)):
        order = a_limit("1400")
        known = replace(order, exchange_order_id=done(client.place(order)).execution.exchange_order_id)
        fake.fail_next("close", "CancelOrder", executed=executed)
        answer = client.cancel(known)
        assert isinstance(answer, Found)
        assert answer.execution.status is status


def test_a_cancel_is_sent_where_only_the_look_before_it_fails(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    order = a_limit("1400")
    known = replace(order, exchange_order_id=done(client.place(order)).execution.exchange_order_id)
    fake.fail_next("close", "SingleOrdHist")
    answer = client.cancel(known)
    assert isinstance(answer, Found)
    assert answer.execution.status is S.CANCELED


def test_what_is_not_there_is_not_cancelled(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    assert isinstance(client.cancel(an_order()), NotFound)
    client._listed = None
    fake.fail_next("close", "OrderBook")
    assert isinstance(client.cancel(an_order()), NoAnswer)
    assert fake.asked("CancelOrder") == []


def test_a_stray_is_cancelled_by_itself_and_a_cancel_that_failed_is_told(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    fake.exchange_seconds = 0
    ours, others = a_limit("1400"), a_limit("1400")
    numbers = [done(client.place(order)).execution.exchange_order_id for order in (ours, others)]
    by_hand = fake.by_hand("B", 1, "1400.00")
    stray = RestsThere("CIPLA", ours.client_order_id, False)
    fake.fail_next("not_ok", "CancelOrder", text="Server Timeout :  ")
    with pytest.raises(BrokerError, match="Server Timeout"):
        client.cancel_stray(stray)
    client.cancel_stray(stray)
    client.cancel_stray(stray)  # that it is gone already is fine
    assert [fake.status_of(number) for number in (*numbers, by_hand)] == ["CANCELED", "OPEN", "OPEN"]


# --- questions --------------------------------------------------------------------------------------------------------


def test_many_orders_that_rest_are_followed_by_one_question(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    """One each, every two seconds, would use up the minute's questions, and the account would go unasked."""
    orders = [a_limit("1400") for _ in range(5)]
    numbers = [done(client.place(order)).execution.exchange_order_id for order in orders]
    resting = [replace(o, exchange_order_id=n, status=S.NEW) for o, n in zip(orders, numbers, strict=True)]
    before = len(fake.calls)
    assert [found(client, order) for order in resting] == [S.NEW] * 5
    assert [name for name, _ in fake.calls[before:]] == ["OrderBook"]
    client.cancel(resting[0])
    assert found(client, resting[0]) is S.CANCELED, "what was listed before a cancel is not asked again"


def test_many_orders_in_doubt_are_looked_for_in_one_list(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.exchange_seconds = 0
    orders = [lost(client, fake, a_limit("1400")) for _ in range(5)]
    before = len(fake.calls)
    assert [found(client, order) for order in orders] == [S.NEW] * 5
    assert [name for name, _ in fake.calls[before:]] == ["OrderBook"]
    assert found(client, lost(client, fake, a_limit("1400"))) is S.NEW, "a list from before an order is no news of it"


def test_looks_at_the_account_leave_questions_for_a_way_out(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    """Its quote, its history and its tag: without them nothing is sold, however fresh the balance is."""
    fake.holdings["CIPLA-EQ"] = 10
    client._questions = Pace((1000, 1.0), (30, 60.0))

    def look_on_and_on() -> None:
        for _ in range(30):
            client.balances()

    with pytest.raises(NeverLeft):
        look_on_and_on()
    for question in (client.open_orders, lambda: client.trades_since("CIPLA", now())):
        with pytest.raises(NeverLeft):
            question()
    order = a_sale()
    assert done(client.place(order)).execution.status is S.FILLED
    assert found(client, order) is S.FILLED


@pytest.mark.parametrize("endpoint", ["OrderBook", "GetQuotes"])
def test_who_waits_for_the_same_answer_does_not_wait_for_ever(
    client: FlatTradeClient, fake: FakeFlatTrade, endpoint: str
) -> None:
    """One after the other, each with a time of its own, they would take up all threads that there are."""
    questions: dict[str, Callable[[], object]] = {
        "OrderBook": lambda: client.look_up(an_order()), "GetQuotes": lambda: client.current_price("CIPLA")
    }  # fmt: skip
    client.symbol_rules("CIPLA")
    client._seen.clear()
    client.seconds = 0.5
    for _ in range(8):
        fake.fail_next("stall", endpoint)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for asked in [pool.submit(questions[endpoint]) for _ in range(8)]:
            with contextlib.suppress(BrokerError):
                assert isinstance(asked.result(), NoAnswer)
    assert time.monotonic() - began < 2 * 0.5 + 1


def test_a_share_that_cannot_be_priced_does_not_spoil_the_others(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    for text in ('{"stat":"Ok"}', f'{{"stat":"Not_Ok","emsg":"{NO_DATA}"}}'.replace('"no data"', "no data")):
        client._seen.clear()
        fake.fail_next("garbage", "GetQuotes", text=text)
        assert client.current_prices(["CIPLA", "M&M"]).keys() == {"M&M"}
    client._seen.clear()
    fake.fail_next("close", "GetQuotes")
    with pytest.raises(BrokerError, match="no usable answer"):
        client.current_prices(["CIPLA", "M&M"])
    fake.expire()
    client._seen.clear()
    with pytest.raises(BrokerError, match="log in"):
        client.current_prices(["CIPLA", "M&M"])


def test_a_share_whose_number_changed_is_searched_again(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client._tokens["CIPLA"] = "2885"  # that of RELIANCE by now
    with pytest.raises(BrokerError, match="another share"):
        client.current_price("CIPLA")
    assert client.current_price("CIPLA") == 1500


def test_holdings_are_asked_again_after_an_order(
    client: FlatTradeClient, fake: FakeFlatTrade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's look, every three seconds, may fall in between."""
    fake.holdings["CIPLA-EQ"] = 10
    placed = client._placed

    def looked_at_meanwhile(*given: Any) -> str:
        client.balances()
        return placed(*given)

    monkeypatch.setattr(client, "_placed", looked_at_meanwhile)
    done(client.place(a_sale()))
    fake.holdings["CIPLA-EQ"] = 0
    assert "CIPLA" not in client.balances()


def test_money_that_is_owed_is_no_broken_reply() -> None:
    assert free_money({"cash": "-120.50", "payin": "20.00", "marginused": "0"}) == 0
    assert free_money({"cash": "100", "marginused": "-50"}) == 100
    with pytest.raises(BadReply):
        free_money({"cash": "a lot"})


def test_a_quote_that_has_to_wait_for_its_turn_says_how_long(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.symbol_rules("CIPLA")
    client._seen.clear()
    client._questions = Pace((1, 60.0))
    client._questions.take()
    outcome = refused(client.place(an_order()))
    assert outcome.never_left
    assert (outcome.retry_after_seconds or 0) > 50


# --- the token --------------------------------------------------------------------------------------------------------


def test_that_an_older_token_died_does_not_take_the_newer_one(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.login.died("the one of yesterday")
    assert client.login.token() == fake.token


def test_the_token_of_another_client_is_none_of_ours(
    client: FlatTradeClient, fake: FakeFlatTrade, tmp_path: Path
) -> None:
    other = FlatTradeLogin(APP_KEY, APP_SECRET, "FT0002", tmp_path, now, fake.auth_url)
    with pytest.raises(BrokerError, match="nobody is logged in"):
        other.token()
    assert FlatTradeLogin(APP_KEY, APP_SECRET, UID, tmp_path, now, fake.auth_url).token() == fake.token
