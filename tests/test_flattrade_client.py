"""The FlatTrade client against the fake one: what is sent, which answer means what, and what is never sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_flattrade import APP_KEY, APP_SECRET, FIELDS, UID, FakeFlatTrade
from harness import eventually
from shares import a_client, a_limit, a_sale, an_order, done, now, refused

import flattrade_client
from broker import Balance, BrokerError, Done, Found, NoAnswer, NotFound, Outcome, Refused, Unknown, UnknownSymbol
from flattrade_client import FlatTradeClient
from flattrade_link import NotOk, Pace
from flattrade_orders import (
    CannotSend,
    Meaning,
    Quote,
    execution_of,
    free_money,
    marketable,
    meaning_of,
    order_parameters,
    quote_of,
    scrip_of,
    shares_held,
    trades_of,
)
from flattrade_token import FlatTradeLogin, Token, hashed_secret, next_clearing
from models import (
    ENDINGS,
    RESTING,
    Execution,
    OrderStatus,
    OrderType,
    RestsThere,
    Side,
)
from reply_values import BadReply

D = Decimal
S = OrderStatus
CASES = json.loads((Path(__file__).parent / "data" / "flattrade_cases.json").read_text("utf-8"))
CAPTURES = CASES["wire_captures"]["cases"]
ORDERS = [case for case in CAPTURES if case["path"].endswith("PlaceOrder")]
ERRORS = CASES["errors"]
RESPONSES = {row["endpoint"]: row["body"] for row in CASES["responses"]}


@pytest.fixture
def fake() -> Iterator[FakeFlatTrade]:
    with FakeFlatTrade() as one:
        yield one


@pytest.fixture
def client(fake: FakeFlatTrade, tmp_path: Path) -> FlatTradeClient:
    return a_client(fake, tmp_path)


# --- the documented and captured cases ------------------------------------------------------------------------------


def test_the_secret_is_hashed_as_the_documentation_says() -> None:
    token = CASES["auth"]["token_request"]
    asked = token["json"]
    assert hashed_secret(asked["api_key"], asked["request_code"], token["plain_secret_used"]) == asked["api_secret"]


@pytest.mark.parametrize("case", [case for case in ORDERS if case["jData"]["prctyp"] == "LMT"])
def test_an_order_says_what_flattrades_own_library_says_apart_from_its_quirks(case: dict[str, Any]) -> None:
    """Its library sends trgprc "None", remarks null, prices as float text, and products that are not ours."""
    said = case["jData"]
    symbol = said["tsym"].replace("%26", "&").removesuffix("-EQ")
    symbol = f"BSE:{symbol}" if said["exch"] == "BSE" else symbol
    side = Side.BUY if said["trantype"] == "B" else Side.SELL
    tag = said["remarks"] or "tag"
    order = a_limit(said["prc"], symbol=symbol, side=side, quantity=D(said["qty"]), client_order_id=tag)
    order = replace(order, time_in_force=said["ret"])
    sent = order_parameters(order, said["uid"], D(said["prc"]))
    quirks = {"trgprc", "prd", "prc", "remarks"}
    assert {k: v for k, v in sent.items() if k not in quirks} == {k: v for k, v in said.items() if k not in quirks}
    assert (D(sent["prc"]), sent["prd"], sent["remarks"]) == (D(said["prc"]), "C", tag)
    assert all(isinstance(value, str) for value in sent.values())


@pytest.mark.parametrize("case", CAPTURES)
def test_the_fake_takes_what_flattrades_own_library_sends_apart_from_its_quirks(
    client: FlatTradeClient, fake: FakeFlatTrade, case: dict[str, Any]
) -> None:
    said = {name: text for name, text in case["jData"].items() if text not in (None, "None")}
    said |= {name: UID for name in ("uid", "actid") if name in said}
    # What asks for an order that is not there is understood, too.
    answered = Meaning.EMPTY
    try:
        client._request(case["path"].removeprefix("/PiConnectAPI/"), said, client._orders)
    except NotOk as exc:
        answered = exc.meaning
    assert answered is Meaning.EMPTY
    assert len(fake.orders) == (case in ORDERS)


def test_an_order_has_every_field_that_is_documented_and_that_others_send() -> None:
    documented = next(c["jData"] for c in CASES["documented_requests"] if c["endpoint"].endswith("PlaceOrder"))
    others = CASES["openalgo_place_order_shape"]["fields"].keys() - {"trgprc", "mkt_protection"}
    assert order_parameters(an_order(), UID, D(1)).keys() >= documented.keys() | others


@pytest.mark.parametrize("name", ["CancelOrder", "OrderBook", "SingleOrdHist", "Limits", "SearchScrip", "GetQuotes"])
def test_a_question_has_the_fields_that_are_documented(client: FlatTradeClient, fake: FakeFlatTrade, name: str) -> None:
    order = a_limit("1490")
    done(client.place(order))
    client.cancel(order)
    client.balances()
    client.current_price("CIPLA")
    documented = next(c["jData"] for c in CASES["documented_requests"] if c["endpoint"].endswith(name))
    assert next(asked.keys() for asked in fake.asked(name)) == documented.keys()


def test_a_request_is_the_documented_text(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.symbol_rules("M&M")
    assert fake.bodies[-2] == f'jData={{"uid":"{UID}","stext":"M%26M-EQ","exch":"NSE"}}&jKey={fake.token}'


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row["body"]["emsg"])
def test_what_each_documented_refusal_means(row: dict[str, Any]) -> None:
    kinds = {
        "auth": Meaning.EXPIRED, "rate": Meaning.RATE, "EMPTY": Meaning.EMPTY, "no match": Meaning.EMPTY,
        "not found": Meaning.EMPTY, "request rejected": Meaning.REFUSED, "UNKNOWN": Meaning.UNCLEAR,
    }  # fmt: skip
    (wanted,) = {meaning for kind, meaning in kinds.items() if row["kind"].startswith(kind)}
    assert meaning_of(row["body"]["emsg"]) is wanted


def test_the_documented_history_is_an_order_that_was_filled() -> None:
    rows = RESPONSES["SingleOrdHist"]
    rows = [row | {"remarks": "tag"} for row in rows]
    order = an_order(symbol="ACCELYA", quantity=D(180), client_order_id="tag")
    for told in (rows, rows[::-1]):
        execution = execution_of(order, told)
        assert (execution.status, execution.executed_quantity) == (S.FILLED, D(180))
        assert (execution.executed_quote, execution.exchange_order_id) == (D(144000), "20121300065716")
    assert execution_of(order, rows[1:]).status is S.NEW


def test_the_documented_order_book_has_one_that_waits_and_one_that_was_refused() -> None:
    waits, not_taken = RESPONSES["OrderBook"]
    assert execution_of(an_order(symbol="ACC", quantity=D(100)), [waits]).status is S.NEW
    execution = execution_of(an_order(symbol="ABB", quantity=D(50)), [not_taken])
    assert (execution.status, execution.note) == (S.REJECTED, "Insufficient funds")


def test_the_documented_replies_are_read() -> None:
    assert free_money(RESPONSES["Limits"]) == D("1500000000000000.00") - D("3945540.00")
    quote = quote_of(RESPONSES["GetQuotes"])
    assert (quote.last, quote.best_bid, quote.highest, quote.tick) == (D(0), D(2000), D("2093.95"), D("0.05"))
    with pytest.raises(CannotSend, match="no price"):
        marketable(Side.BUY, quote)


def cancelled(client: FlatTradeClient) -> object:
    order = a_limit("1490")
    number = done(client.place(order)).execution.exchange_order_id
    client._cancel(number)
    return client.look_up(replace(order, exchange_order_id=number))


def filled(client: FlatTradeClient) -> object:
    of = {"symbol": "ACCELYA", "quantity": D(180), "client_order_id": "wc test order"}
    return client.look_up(a_limit("800", exchange_order_id="20121300065716", **of))


def quoted(client: FlatTradeClient) -> object:
    client._tokens["ACC"] = "22"  # of a search before
    return client.symbol_rules("ACC").price_tick


# What our client makes of each, where the fake one answers with it. A cancel's reply does not say how the order stands.
MADE_OF: dict[str, tuple[Callable[[FlatTradeClient], object], object]] = {
    "PlaceOrder": (lambda client: client.place(a_limit("1490")),
                   Done(Execution(S.NEW, "20052000000017", note="the exchange has not answered yet"))),
    "CancelOrder": (cancelled, Found(Execution(S.NEW, "26112100000001"))),
    "SingleOrdHist": (filled, Found(Execution(S.FILLED, "20121300065716", D(180), D(144000)))),
    "OrderBook": (lambda client: client.open_orders(), [RestsThere("ACC", "", False)]),
    "Limits": (lambda client: client.balances(), {"INR": Balance(D("1499999996054460"))}),
    "SearchScrip": (lambda client: client.symbol_rules("RELIANCE").price_tick, D("0.10")),
    "GetQuotes": (quoted, D("0.05")),
}  # fmt: skip
# What is no answer to us, and why.
NOT_ASKED = {
    "ModifyOrder": "an order is never changed: it stays what was decided, or is cancelled",
    "Postback": "FlatTrade would have to be let in for it; how an order stands is asked for",
}


@pytest.mark.parametrize("endpoint", MADE_OF)
def test_what_becomes_of_a_documented_reply(client: FlatTradeClient, fake: FakeFlatTrade, endpoint: str) -> None:
    ask, wanted = MADE_OF[endpoint]
    fake.fail_next("json", endpoint, status=200, text=json.dumps(RESPONSES[endpoint]))
    assert ask(client) == wanted
    assert fake.asked(endpoint) == [], "the fake one had an answer of its own"


def test_no_documented_reply_is_left_out() -> None:
    assert RESPONSES.keys() == MADE_OF.keys() | NOT_ASKED.keys()
    # It answers 404 to who asks all the same.
    assert NOT_ASKED.keys().isdisjoint(FIELDS)


def test_the_documented_postback_is_an_order_that_waits() -> None:
    order = a_limit("2500", symbol="ACC", quantity=D(1))
    assert execution_of(order, [RESPONSES["Postback"]]) == Execution(S.NEW, "23010500000376")


@pytest.mark.parametrize(
    ("word", "status"),
    [(word, {"open": S.NEW, "complete": S.FILLED, "rejected": S.REJECTED, "cancelled": S.CANCELED}[kind])
     for kind, words in CASES["status_words"].items() if isinstance(words, list) for word in words],
)  # fmt: skip
@pytest.mark.parametrize("spelled", [str.upper, str.title])
def test_every_word_for_a_status_is_known_in_either_spelling(word: str, status: OrderStatus, spelled: Any) -> None:
    row = {"exch": "NSE", "tsym": "CIPLA-EQ", "norenordno": "1", "status": spelled(word), "trantype": "B"}
    row |= {"fillshares": "10", "avgprc": "5"} if status is S.FILLED else {}
    assert execution_of(an_order(), [row]).status is status


# --- symbols and prices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "exch", "tsym"),
    [
        ("CIPLA", "NSE", "CIPLA-EQ"), ("CIPLA-EQ", "NSE", "CIPLA-EQ"), ("BAJAJ-AUTO", "NSE", "BAJAJ-AUTO-EQ"),
        ("M&M", "NSE", "M&M-EQ"), ("ABC-BE", "NSE", "ABC-BE"), ("BSE:CIPLA", "BSE", "CIPLA"),
    ],
)  # fmt: skip
def test_a_symbol_is_a_share_on_one_exchange(symbol: str, exch: str, tsym: str) -> None:
    assert scrip_of(symbol) == (exch, tsym)


def a_quote(last: str, tick: str = "0.05", **more: str) -> Quote:
    row = {"lp": last, "ti": tick, "ls": "1", "uc": "99999", "lc": "0.05", "sp1": "0", "bp1": "0"} | more
    return quote_of(row)


@pytest.mark.parametrize(
    ("last", "tick", "buy", "sell"),
    [
        ("50", "0.05", "51", "49"),
        ("99.99", "0.01", "101.99", "97.99"),  # 101.9898 and 97.9902: outward
        ("100", "0.05", "101", "99"),
        ("500", "0.05", "505", "495"),
        ("500.05", "0.05", "502.60", "497.50"),  # 502.55025 and 497.54975
        ("1500", "0.10", "1507.5", "1492.5"),
        ("1503", "1", "1511", "1495"),
    ],
)
def test_a_market_order_reaches_so_far_and_is_rounded_outward_to_the_tick(
    last: str, tick: str, buy: str, sell: str
) -> None:
    assert (marketable(Side.BUY, a_quote(last, tick)), marketable(Side.SELL, a_quote(last, tick))) == (D(buy), D(sell))


def test_a_market_order_stays_within_the_days_limits_and_on_the_tick() -> None:
    seen = a_quote("1500", "0.10", uc="1502.05", lc="1497.95")
    assert (marketable(Side.BUY, seen), marketable(Side.SELL, seen)) == (D("1502"), D("1498"))


def test_where_nothing_was_traded_yet_the_other_side_of_the_book_is_the_price() -> None:
    assert marketable(Side.BUY, a_quote("0.00", sp1="200")) == D(202)
    assert marketable(Side.SELL, a_quote("0.00", bp1="200")) == D(198)
    with pytest.raises(CannotSend, match="no price"):
        marketable(Side.SELL, a_quote("0.00", sp1="200"))


def test_rules_are_whole_shares_in_rupees_without_stop_orders(client: FlatTradeClient) -> None:
    rules = client.symbol_rules("CIPLA")
    assert (rules.quantity_step, rules.price_tick, rules.quote_asset) == (D(1), D("0.10"), "INR")
    assert rules.order_types == {"MARKET", "LIMIT"}
    assert not rules.quote_amount_allowed


def test_twenty_who_ask_for_one_share_at_once_ask_flattrade_once(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    threads = [threading.Thread(target=client.symbol_rules, args=("CIPLA",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fake.asked("SearchScrip")), len(fake.asked("GetQuotes"))) == (1, 1)


def test_only_the_very_same_name_is_found(client: FlatTradeClient) -> None:
    with pytest.raises(UnknownSymbol, match="REL-EQ"):
        client.symbol_rules("REL")
    with pytest.raises(UnknownSymbol, match="series"):
        client.symbol_rules("BAJAJAUTO")


# --- orders ---------------------------------------------------------------------------------------------------------


def test_a_market_buy_is_a_limit_order_that_the_market_reaches_and_does_not_wait(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    order = an_order()
    execution = done(client.place(order)).execution
    assert (execution.status, execution.executed_quantity, execution.executed_quote) == (S.FILLED, D(10), D("15001.0"))
    (sent,) = fake.orders
    assert (sent["prctyp"], sent["prc"], sent["ret"], sent["remarks"]) == (
        "LMT",
        "1507.5",
        "IOC",
        order.client_order_id,
    )


def test_what_a_market_entry_does_not_get_at_once_is_cancelled_and_a_way_out_waits(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    fake.set_price("CIPLA-EQ", "1500.00", sp1="1510.00", bp1="1480.00")
    assert done(client.place(an_order())).execution.status is S.CANCELED
    fake.holdings["CIPLA-EQ"] = 10
    assert done(client.place(a_sale())).execution.status is S.NEW
    assert [sent["ret"] for sent in fake.orders] == ["IOC", "DAY"]


def test_a_part_that_was_filled_is_told(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.set_price("CIPLA-EQ", "1500.00", depth="4")
    execution = done(client.place(an_order())).execution
    assert (execution.status, execution.executed_quantity) == (S.CANCELED, D(4))
    resting = done(client.place(a_limit("1600"))).execution
    assert (resting.status, resting.executed_quantity) == (S.PARTIALLY_FILLED, D(4))


def test_ok_is_not_taken_what_the_exchange_refuses_afterwards_is_a_refusal(
    client: FlatTradeClient, fake: FakeFlatTrade
) -> None:
    fake.reject_next("EXCHANGE: price band")
    execution = done(client.place(an_order())).execution
    assert (execution.status, execution.note) == (S.REJECTED, "EXCHANGE: price band")


def test_an_exchange_that_takes_its_time_is_followed(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.exchange_seconds = 1.3
    fake.reject_next("EXCHANGE: price band")
    order = an_order()
    outcome = done(client.place(order)).execution
    assert outcome.status is S.NEW
    known = replace(order, exchange_order_id=outcome.exchange_order_id)

    def is_over() -> bool:
        answer = client.look_up(known)
        return isinstance(answer, Found) and answer.execution.status is S.REJECTED

    eventually(is_over, 5, lambda: "never told")
    assert len(fake.orders) == 1


def test_a_limit_order_rests_is_looked_up_and_cancelled(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    order = a_limit("1490.0")
    outcome = done(client.place(order)).execution
    assert outcome.status in RESTING
    assert client.open_orders() == [RestsThere("CIPLA", order.client_order_id, False)]
    answer = client.cancel(replace(order, exchange_order_id=outcome.exchange_order_id))
    assert isinstance(answer, Found)
    assert answer.execution.status is S.CANCELED
    client.cancel_stray(RestsThere("CIPLA", order.client_order_id, False))
    assert client.open_orders() == []


def test_a_stray_is_found_by_its_tag(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    order = a_limit("1490.0")
    done(client.place(order))
    client.cancel_stray(RestsThere("CIPLA", order.client_order_id, False))
    assert client.open_orders() == []


def test_a_quote_that_is_missing_is_a_refusal_and_nothing_is_sent(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.set_price("CIPLA-EQ", "0.00", sp1="0.00", bp1="0.00")
    assert "no price" in refused(client.place(an_order())).reason
    client._seen.clear()
    fake.fail_next("close", "GetQuotes")
    outcome = refused(client.place(an_order()))
    assert outcome.never_left
    assert "no quote" in outcome.reason
    assert fake.asked("PlaceOrder") == []


@pytest.mark.parametrize("type_", [OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP])
def test_other_orders_than_market_and_limit_are_refused_by_name(
    client: FlatTradeClient, fake: FakeFlatTrade, type_: OrderType
) -> None:
    assert type_.value in refused(client.place(an_order(type=type_))).reason
    (outcome,) = client.protect([an_order(type=type_)])
    assert "in this version" in refused(outcome).reason
    assert fake.asked("PlaceOrder") == []


@pytest.mark.parametrize("time_in_force", ["GTC", "FOK"])
def test_a_time_in_force_that_there_is_not_is_refused(client: FlatTradeClient, time_in_force: str) -> None:
    assert time_in_force in refused(client.place(a_limit("1490", time_in_force=time_in_force))).reason


def test_part_of_a_share_is_refused(client: FlatTradeClient) -> None:
    assert "whole numbers" in refused(client.place(an_order(quantity=D("1.5")))).reason


def test_the_fake_takes_no_market_orders_and_no_bare_ampersand(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    data = order_parameters(an_order(), UID, D(1500))
    for wrong in ({"prctyp": "MKT", "prc": "0"}, {"prctyp": "SL-MKT"}, {"tsym": "M&M-EQ"}, {"amo": "No"}, {"qty": "0"}):
        with pytest.raises(NotOk):
            client._request("PlaceOrder", data | wrong, client._orders)
    with pytest.raises(NotOk, match="invalid input"):
        client._request("PlaceOrder", {**data, "qty": 1}, client._orders)  # type: ignore[dict-item]
    assert fake.orders == []


# --- endings: what each answer to an order means ----------------------------------------------------------------------


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row["body"]["emsg"])
@pytest.mark.parametrize("kind", ["not_ok", "garbage"])
def test_only_listed_texts_are_refusals_and_all_others_are_unknown(
    client: FlatTradeClient, fake: FakeFlatTrade, row: dict[str, Any], kind: str
) -> None:
    emsg = row["body"]["emsg"]
    text = emsg if kind == "not_ok" else json.dumps({"stat": "Not_Ok", "emsg": emsg})
    fake.fail_next(kind, text=text)
    outcome = client.place(an_order())
    meaning = meaning_of(emsg)
    if meaning in (Meaning.EMPTY, Meaning.UNCLEAR):
        assert isinstance(outcome, Unknown), outcome
    else:
        assert refused(outcome).never_left is (meaning is Meaning.RATE)
    assert len(fake.asked("PlaceOrder")) <= 1


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("close", {}), ("reset", {}), ("html", {"status": 502}), ("html", {"status": 504}), ("html", {"status": 200}),
        ("not_ok", {"text": "Server Timeout :  "}), ("not_ok", {"text": "something new"}), ("not_ok", {"text": ""}),
        ("garbage", {"text": "{}"}), ("garbage", {"text": "[]"}), ("garbage", {"text": '{"stat":"Ok"}'}),
        ("garbage", {"text": '{"stat":"Ok","norenordno":""}'}), ("garbage", {"text": '{"stat":"Ok"'}),
    ],
)  # fmt: skip
def test_a_lost_or_broken_reply_is_unknown_and_the_tag_tells_what_became_of_it(
    client: FlatTradeClient, fake: FakeFlatTrade, kind: str, more: dict[str, Any], executed: bool
) -> None:
    order = an_order()
    fake.fail_next(kind, executed=executed, **more)
    assert isinstance(client.place(order), Unknown)
    answer = client.look_up(order)
    assert isinstance(answer, Found if executed else NotFound), answer
    assert len(fake.orders) == int(executed)
    assert len(fake.asked("PlaceOrder")) <= 1


def test_a_stalled_reply_ends_in_time_and_is_unknown(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.seconds = 0.3
    fake.fail_next("stall", executed=True)
    assert isinstance(client.place(an_order()), Unknown)
    assert len(fake.orders) == 1


def test_nobody_there_is_never_left(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.symbol_rules("CIPLA")
    fake.stop()
    assert refused(client.place(an_order())).never_left


@pytest.mark.parametrize("status", [200, 400])
def test_a_refusal_is_read_at_whatever_http_status_it_comes(
    client: FlatTradeClient, fake: FakeFlatTrade, status: int
) -> None:
    fake.error_status = status
    order = an_order(client_order_id="what is no tag")
    assert "remarks" in refused(client.place(order)).reason
    assert client.open_orders() == []


def test_the_books_lists_are_read_at_http_400_too(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.fail_next("http_400", "OrderBook")
    assert isinstance(client.look_up(an_order()), NotFound)


def test_a_list_that_did_not_come_is_no_proof_of_absence(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    for kind, text in (
        ("garbage", "{}"),
        ("garbage", '{"stat":"Ok"}'),
        ("garbage", "null"),
        ("close", ""),
        ("not_ok", "Server Timeout :  "),
    ):
        fake.fail_next(kind, "OrderBook", text=text)
        assert isinstance(client.look_up(an_order()), NoAnswer), kind


def test_the_order_book_is_of_the_day_so_yesterdays_order_is_not_proven_absent(client: FlatTradeClient) -> None:
    answer = client.look_up(an_order(sent_at=now() - timedelta(days=1)))
    assert isinstance(answer, NoAnswer)
    assert answer.for_long


def test_two_orders_with_one_tag_are_believed_by_nobody(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    order = a_limit("1490")
    done(client.place(order))
    done(client.place(order))
    assert isinstance(client.look_up(order), NoAnswer)


@pytest.mark.parametrize(
    "change",
    [{"status": "WHATEVER"}, {"tsym": "ACC-EQ"}, {"exch": "BSE"}, {"remarks": "of somebody else"}, {"trantype": "S"},
     {"fillshares": "11"}, {"fillshares": "9"}, {"fillshares": "NaN"}, {"avgprc": None}, {"fillshares": "-1"},
     {"norenordno": ""}],
)  # fmt: skip
def test_a_reply_that_is_not_this_order_is_not_believed(change: dict[str, Any]) -> None:
    order = an_order()
    row = {
        "exch": "NSE", "tsym": "CIPLA-EQ", "norenordno": "1", "status": "COMPLETE", "trantype": "B",
        "fillshares": "10", "avgprc": "1500", "remarks": order.client_order_id,
    }  # fmt: skip
    assert execution_of(order, [row]).status is S.FILLED
    with pytest.raises(BadReply):
        execution_of(order, [row | change])


# --- limits -----------------------------------------------------------------------------------------------------------


def test_twelve_orders_at_once_are_nine_and_three_that_never_left(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client.symbol_rules("CIPLA")
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(client.place(a_limit("1490")))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert len(fake.orders) == len(fake.asked("PlaceOrder")) == 9
    assert len(late) == 3
    assert all(outcome.never_left and (outcome.retry_after_seconds or 0) > 0 for outcome in late)


def test_what_flattrade_itself_finds_too_many_never_left(tmp_path: Path) -> None:
    with FakeFlatTrade(order_limits=(1, 40)) as fake:
        client = a_client(fake, tmp_path)
        done(client.place(a_limit("1490")))
        fake._times["orders"].append(fake._times["orders"][-1] + 5)
        outcome = refused(client.place(a_limit("1490")))
        assert (outcome.never_left, outcome.retry_after_seconds) == (True, 1.0)
        assert len(fake.orders) == 1


def test_a_pace_lets_so_many_pass_in_each_of_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    pace = Pace((2, 1.0), (3, 60.0))
    assert [pace.take(), pace.take()] == [0, 0]
    assert pace.take() == 1.0
    at[0] = 101.0
    assert pace.take(kept=1) == 59.0
    assert pace.take() == 0
    assert pace.take() == 59.0
    at[0] = 160.0
    assert pace.take() == 0


def test_prices_that_are_only_watched_leave_questions_for_orders(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    client._questions = Pace((9, 1.0), (flattrade_client.KEPT_FOR_ORDERS + 2, 60.0))
    assert client.current_prices(["CIPLA", "M&M"]).keys() == {"CIPLA"}
    assert client.current_price("M&M") == 1500


# --- the account ----------------------------------------------------------------------------------------------------


def test_balances_are_rupees_and_shares(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    fake.holdings["M&M-EQ"] = 7
    assert client.balances() == {"INR": Balance(D(100000)), "M&M": Balance(D(7))}
    done(client.place(an_order()))
    assert client.balances() == {"INR": Balance(D("84999.00")), "M&M": Balance(D(7)), "CIPLA": Balance(D(10))}


def test_a_share_that_was_sold_out_of_the_depository_is_taken_off_once() -> None:
    names = [{"exch": "BSE", "tsym": "CIPLA"}, {"exch": "NSE", "tsym": "CIPLA-EQ"}]
    holding = {"exch_tsym": names, "holdqty": "30", "dpqty": "0", "usedqty": "10"}
    sold = {"exch": "NSE", "tsym": "CIPLA-EQ", "prd": "C", "netqty": "-10"}
    intraday = {"exch": "NSE", "tsym": "CIPLA-EQ", "prd": "I", "netqty": "50"}
    bought = {"exch": "BSE", "tsym": "CIPLA", "prd": "C", "netqty": "5"}
    assert shares_held([holding], [sold, intraday, bought]) == {"CIPLA": 25}


@pytest.mark.parametrize(
    ("row", "held"),
    [
        ({"holdqty": "5"}, 5), ({"btstqty": "5"}, 5), ({"unplgdqty": "5"}, 5), ({"benqty": "5"}, 5),
        ({"dpqty": "5"}, 5), ({"npoadqty": "5"}, 5), ({"npoadqty": "3", "dpqty": "5"}, 5),
        ({"npoadqty": "5", "dpqty": "3"}, 5),
        ({"holdqty": "2", "btstqty": "3", "benqty": "4", "unplgdqty": "1", "dpqty": "6", "usedqty": "7"}, 9),
        ({"holdqty": "5", "usedqty": "6"}, 0), ({"colqty": "5"}, 0), ({"brkcolqty": "5"}, 0), ({}, 0),
    ],
)  # fmt: skip
def test_shares_of_every_kind_but_collateral_can_be_sold(row: dict[str, str], held: int) -> None:
    """Bought yesterday (T1), in the depository, free of a pledge: https://pi.flattrade.in/docs, Holdings."""
    names = {"exch_tsym": [{"exch": "NSE", "tsym": "CIPLA-EQ"}]}
    assert shares_held([names | row], []).get("CIPLA", 0) == held
    assert (
        shares_held([names | row], [{"exch": "NSE", "tsym": "CIPLA-EQ", "prd": "C", "netqty": "4"}])["CIPLA"]
        == held + 4
    )


def a_trade(number: str, at: str, **more: str) -> dict[str, str]:
    row = {"exch": "NSE", "tsym": "CIPLA-EQ", "norenordno": number, "trantype": "S", "flqty": "1", "flprc": "100"}
    return row | {"fltm": f"10:00:{at} 20-11-2026"} | more


def test_trades_are_those_of_the_share_since_then_by_order_the_latest_last() -> None:
    rows = [
        a_trade("1", "20", flqty="3", flprc="110"), a_trade("2", "15"), a_trade("1", "05"), a_trade("3", "04"),
        a_trade("4", "30", tsym="ACC-EQ"), a_trade("5", "30", exch="BSE", tsym="CIPLA"),
        a_trade("6", "05", trantype="B"),
    ]  # fmt: skip
    since = datetime(2026, 11, 20, 4, 30, 5, 900_000, tzinfo=UTC)
    found = trades_of("CIPLA", rows, since)
    assert [trade.exchange_order_id for trade in found] == ["6", "2", "1"]
    assert (found[2].quantity, found[2].quote, found[2].side) == (D(4), D(430), Side.SELL)
    assert (found[2].last_at, found[0].side) == (datetime(2026, 11, 20, 4, 30, 20, tzinfo=UTC), Side.BUY)


def test_trades_are_told_by_order_in_the_time_of_the_world(client: FlatTradeClient) -> None:
    order = an_order()
    outcome = done(client.place(order)).execution
    (trade,) = client.trades_since("CIPLA", now() - timedelta(minutes=1))
    assert (trade.exchange_order_id, trade.quantity, trade.quote) == (outcome.exchange_order_id, D(10), D("15001.0"))
    assert abs(trade.last_at - now()) < timedelta(seconds=5)
    assert client.trades_since("CIPLA", now() + timedelta(minutes=1)) == []


def test_a_fills_time_is_read_in_both_orders() -> None:
    row = {"exch": "NSE", "tsym": "CIPLA-EQ", "norenordno": "1", "trantype": "S", "flqty": "1", "flprc": "2"}
    at = datetime(2026, 11, 20, 4, 30, 5, tzinfo=UTC)
    for text in ("10:00:05 20-11-2026", "20-11-2026 10:00:05"):
        assert trades_of("CIPLA", [row | {"fltm": text}], at)[0].last_at == at
    with pytest.raises(BadReply, match="time"):
        trades_of("CIPLA", [row], at)


# --- the login --------------------------------------------------------------------------------------------------------


def test_an_expired_session_refuses_loudly_once_and_nothing_is_kept_for_later(
    client: FlatTradeClient, fake: FakeFlatTrade, tmp_path: Path
) -> None:
    told: list[str] = []
    client.login.on_change = told.append
    client.symbol_rules("CIPLA")
    fake.expire()
    outcome = refused(client.place(an_order()))
    assert not outcome.never_left
    assert "GET /flattrade/login" in outcome.reason
    sent = len(fake.bodies)
    for _ in range(3):
        assert "GET /flattrade/login" in refused(client.place(an_order())).reason
        with pytest.raises(BrokerError, match="GET /flattrade/login"):
            client.balances()
    answer = client.look_up(an_order())
    assert isinstance(answer, NoAnswer)
    assert answer.for_long
    assert len(fake.bodies) == sent, "a dead token was used again"
    assert len(told) == 1
    assert not (tmp_path / "flattrade_token.json").exists()
    client.login.begin()
    client.login.finish(fake.log_in())
    assert done(client.place(an_order())).execution.status in ENDINGS
    assert len(fake.orders) == 1


@pytest.mark.parametrize(
    ("got_at", "dies_at"),
    [
        ("2026-11-20T23:29:59", "2026-11-20T23:30:00"),  # 04:59:59 IST
        ("2026-11-20T23:30:00", "2026-11-21T23:30:00"),  # 05:00 IST
        ("2026-11-20T04:00:00", "2026-11-20T23:30:00"),
    ],
)
def test_a_token_is_dead_at_five_in_india(got_at: str, dies_at: str) -> None:
    assert next_clearing(datetime.fromisoformat(f"{got_at}+00:00")) == datetime.fromisoformat(f"{dies_at}+00:00")


def test_a_token_of_yesterday_is_not_even_tried(fake: FakeFlatTrade, tmp_path: Path) -> None:
    at = [datetime(2026, 11, 20, 23, 29, 59, tzinfo=UTC)]
    client = a_client(fake, tmp_path, lambda: at[0])
    client.balances()
    at[0] += timedelta(seconds=1)
    with pytest.raises(BrokerError, match="the login of 2026-11-21 is over"):
        client.balances()
    assert len(fake.asked("Limits")) == 1


def test_a_restart_knows_the_token_and_only_its_owner_can_read_it(
    client: FlatTradeClient, fake: FakeFlatTrade, tmp_path: Path
) -> None:
    path = tmp_path / "flattrade_token.json"
    assert path.stat().st_mode & 0o777 == 0o600
    again = FlatTradeLogin(APP_KEY, APP_SECRET, UID, tmp_path, now, fake.auth_url)
    assert again.token() == fake.token
    path.write_text("{")
    with pytest.raises(BrokerError, match="nobody is logged in"):
        FlatTradeLogin(APP_KEY, APP_SECRET, UID, tmp_path, now, fake.auth_url).token()


@pytest.mark.parametrize("word", ["stat", "status"])
def test_the_login_server_may_say_stat_or_status(fake: FakeFlatTrade, tmp_path: Path, word: str) -> None:
    fake.auth_key = word
    assert a_client(fake, tmp_path).login.token() == fake.token


def a_login(fake: FakeFlatTrade, folder: Path, secret: str = APP_SECRET, at: list[datetime] | None = None) -> Any:
    return FlatTradeLogin(APP_KEY, secret, UID, folder, (lambda: at[0]) if at else now, fake.auth_url)


def test_a_login_that_is_refused_says_why_even_where_flattrade_does_not(fake: FakeFlatTrade, tmp_path: Path) -> None:
    login = a_login(fake, tmp_path, secret="a wrong secret of 20")
    login.begin()
    with pytest.raises(BrokerError, match="not the registered one") as caught:
        login.finish(fake.log_in())
    assert "a wrong secret" not in str(caught.value)


def test_a_login_of_somebody_elses_account_changes_nothing(fake: FakeFlatTrade, tmp_path: Path) -> None:
    fake.client = "FT9999"
    login = a_login(fake, tmp_path)
    login.begin()
    with pytest.raises(BrokerError, match="another account"):
        login.finish(fake.log_in())
    with pytest.raises(BrokerError, match="nobody is logged in"):
        login.token()


def test_a_code_is_only_taken_where_a_login_was_begun_once_and_in_time(fake: FakeFlatTrade, tmp_path: Path) -> None:
    at = [now()]
    login = a_login(fake, tmp_path, at=at)
    with pytest.raises(BrokerError, match="no login was begun"):
        login.finish(fake.log_in())
    login.begin()
    at[0] += timedelta(minutes=15, seconds=1)
    with pytest.raises(BrokerError, match="no login was begun"):
        login.finish(fake.log_in())
    login.begin()
    login.finish(fake.log_in())
    with pytest.raises(BrokerError, match="no login was begun"):
        login.finish(fake.log_in())
    assert len(fake.asked("apitoken")) == 1


@pytest.mark.parametrize("code", ["", "a b c d", "x" * 513, "a\r\nHost: b", '"}'])
def test_what_is_no_code_is_not_sent(fake: FakeFlatTrade, tmp_path: Path, code: str) -> None:
    login = a_login(fake, tmp_path)
    login.begin()
    with pytest.raises(BrokerError, match="no usable code"):
        login.finish(code)
    assert fake.asked("apitoken") == []


def test_no_text_holds_the_secret_or_the_token(client: FlatTradeClient, fake: FakeFlatTrade) -> None:
    token = fake.token
    fake.fail_next("not_ok", text=f"echo {token}")
    outcome = client.place(an_order())
    shown = f"{client!r} {client.login!r} {Token(token, now())!r} {outcome!r}"
    assert token not in shown
    assert APP_SECRET not in shown
