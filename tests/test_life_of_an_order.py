"""From the alert to the position: every order's life, where nothing goes wrong that should not.

Sums are worked out by hand in the tests: 0.1 % fee, taken in what is received, BTCUSDT at 43000 on a step of 0.00001.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from binance.client import Client
from fake_binance import FakeBinance
from fake_matching import Order
from harness import API_KEY, API_SECRET, Daemon, Reply, assert_csvs_equal_journal, binance, eventually

POST = "POST /api/v3/order"
CANCEL = "DELETE /api/v3/order"

MakeDaemon = Callable[..., Daemon]


# --- market orders ----------------------------------------------------------------------------------------------------


def test_a_market_buy_by_amount_leaves_the_quantity_to_the_exchange_and_books_what_it_says(
    live: Daemon, exchange: FakeBinance
) -> None:
    reply = live.post(symbol="BTCUSDT", action="buy", amount_usdt=10, strategy="trend")
    (post,) = exchange.calls(POST)
    sent = {name: post.params[name] for name in ("symbol", "side", "type", "quoteOrderQty")}
    assert sent == {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quoteOrderQty": "10"}
    assert "quantity" not in post.params
    assert_reply(reply, exchange.orders[0], "FILLED")
    (position,) = positions(live)
    assert dec(position["quantity"]) == Decimal("0.00023") - Decimal("0.00000023")
    assert dec(position["cost"]) == Decimal("0.00023") * 43000 == Decimal("9.89")
    (row,) = live.trades()
    assert (row["Action"], row["Strategy"], row["Status"]) == ("BUY", "trend", "FILLED")
    assert (row["TradeAmount"], row["Price"], row["Quantity"]) == ("9.89", "43000", "0.00023")
    assert (row["Fee"], row["FeeAsset"], row["RealizedPnL"]) == ("0.00000023", "BTC", "")


@pytest.mark.parametrize(("wanted", "sent"), [("0.00023", "0.00023"), ("0.000239", "0.00023"), (0.00013, "0.00013")])
def test_a_market_buy_by_quantity_is_rounded_down_to_the_step(
    live: Daemon, exchange: FakeBinance, wanted: object, sent: str
) -> None:
    reply = live.post(symbol="BTCUSDT", action="buy", quantity=wanted)
    (post,) = exchange.calls(POST)
    assert (post.params["quantity"], "quoteOrderQty" in post.params) == (sent, False)
    assert_reply(reply, exchange.orders[0], "FILLED")
    assert live.trades()[-1]["Quantity"] == sent


def test_a_sell_without_quantity_sells_what_was_bought_net_of_the_fee_and_nothing_of_the_owners(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.set_balance("BTC", 5)
    live.post(symbol="BTCUSDT", action="buy")
    exchange.set_price("BTCUSDT", 44000)
    reply = live.post(symbol="BTCUSDT", action="sell")
    assert_reply(reply, exchange.orders[1], "FILLED")
    # Bought 0.00023 for 9.89, kept 0.00022977, sold 0.00022 of it for 9.68 less 0.00968.
    profit = Decimal("9.68") - Decimal("0.00968") - Decimal("9.89") * Decimal("0.00022") / Decimal("0.00022977")
    row = live.trades()[-1]
    assert (row["Quantity"], row["TradeAmount"], row["Fee"], row["FeeAsset"]) == ("0.00022", "9.68", "0.00968", "USDT")
    assert dec(row["RealizedPnL"]) == round(profit, 8)
    assert exchange.free("BTC") == 5 + Decimal("0.00000977")
    assert (positions(live), counts(live)) == ([], {"trades_today": 1, "open_trades": 0})
    again = live.post(symbol="BTCUSDT", action="sell", strategy="again")
    assert (again["decision"], again["check"]) == ("REJECTED", "no_position")
    assert len(exchange.orders) == 2


@pytest.mark.parametrize("time_in_force", ["IOC", "FOK"])
def test_a_limit_order_that_may_not_rest_ends_at_once(live: Daemon, exchange: FakeBinance, time_in_force: str) -> None:
    limit: Any = {"symbol": "BTCUSDT", "action": "buy", "type": "limit", "quantity": "0.0002", "tif": time_in_force}
    away, there = live.post(**limit, price=42000), live.post(**limit, price=43000)
    assert [order.params["timeInForce"] for order in exchange.calls(POST)] == [time_in_force] * 2
    assert [(reply["status"], reply["quantity"]) for reply in (away, there)] == [("EXPIRED", 0), ("FILLED", 0.0002)]
    assert dec(positions(live)[0]["quantity"]) == Decimal("0.0001998")


@pytest.mark.parametrize("time_in_force", ["IOC", "FOK"])
def test_on_paper_too_it_ends_at_once(paper: Daemon, time_in_force: str) -> None:
    paper.post(symbol="BTCUSDT", action="buy", price=100)
    limit: Any = {"symbol": "BTCUSDT", "action": "buy", "type": "limit", "quantity": "0.09", "tif": time_in_force}
    assert [paper.post(**limit, price=price)["status"] for price in (99, 101)] == ["EXPIRED", "FILLED"]
    assert paper.owner_get("/status")["resting_orders"] == []


def test_several_fills_are_one_order_with_the_average_price_and_all_fees(live: Daemon, exchange: FakeBinance) -> None:
    exchange.set_book("BTCUSDT", asks=[(43000, "0.0001"), (43100, "0.0001"), (43400, 1)])
    reply = live.post(symbol="BTCUSDT", action="buy", quantity="0.00023")
    cost = Decimal("4.3") + Decimal("4.31") + Decimal("1.302")
    assert len(exchange.trades) == 3
    assert_reply(reply, exchange.orders[0], "FILLED")
    assert dec(reply["price"]) == pytest.approx(cost / Decimal("0.00023"))
    (row,) = live.trades()
    assert (row["TradeAmount"], row["Fee"], row["FeeAsset"]) == ("9.912", "0.00000023", "BTC")
    assert dec(row["Price"]) == round(cost / Decimal("0.00023"), 8)
    assert dec(positions(live)[0]["cost"]) == cost


def test_fees_in_bnb_leave_the_whole_quantity_to_sell(live: Daemon, exchange: FakeBinance) -> None:
    exchange.set_balance("BNB", 1)
    exchange.fees_in_bnb = True
    live.post(symbol="BTCUSDT", action="buy")
    assert dec(positions(live)[0]["quantity"]) == Decimal("0.00023")
    live.post(symbol="BTCUSDT", action="sell")
    fee = str(exchange.trades[0].commission)
    assert [(row["Quantity"], row["Fee"], row["FeeAsset"]) for row in live.trades()] == [("0.00023", fee, "BNB")] * 2
    # The fee is not in USDT: what was realised is the price difference alone.
    assert live.trades()[-1]["RealizedPnL"] == "0"
    assert positions(live) == []


def test_fees_in_two_assets_have_no_sum_and_are_spelled_out(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fees_in_bnb = True
    exchange.set_balance("BNB", "0.000006")
    exchange.set_book("BTCUSDT", asks=[(43000, "0.0001"), (43100, 1)])
    live.post(symbol="BTCUSDT", action="buy", quantity="0.0002")
    (row,) = live.trades()
    assert (row["Fee"], row["FeeAsset"]) == ("", "")
    assert row["Note"].startswith("Fees: 0.00000537 BNB, 0.0000001 BTC")
    assert dec(positions(live)[0]["quantity"]) == Decimal("0.0001999")


def test_a_buy_that_ran_out_of_book_is_held_and_counted_with_the_part_that_was_executed(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.set_book("BTCUSDT", asks=[(43000, "0.00015")])
    reply = live.post(symbol="BTCUSDT", action="buy")
    assert (reply["success"], reply["status"]) == (True, "EXPIRED")
    assert_reply(reply, exchange.orders[0], "EXPIRED")
    (row,) = live.trades()
    assert (row["Status"], row["Quantity"], row["TradeAmount"], row["Fee"]) == (
        "EXPIRED", "0.00015", "6.45", "0.00000015",
    )  # fmt: skip
    assert "0.00015 executed" in row["Note"]
    assert dec(positions(live)[0]["quantity"]) == Decimal("0.00014985")
    assert counts(live) == {"trades_today": 1, "open_trades": 1}


def test_a_sell_that_ran_out_of_book_realises_its_part_and_the_rest_can_be_sold_later(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    live = daemon_with(**binance(exchange, max_risk_per_trade=100, trade_amount_usdt=86)).start()
    live.post(symbol="BTCUSDT", action="buy")
    exchange.set_book("BTCUSDT", bids=[(44000, "0.0005")])
    first = live.post(symbol="BTCUSDT", action="sell")
    assert_reply(first, exchange.orders[1], "EXPIRED")
    # Bought 0.002 for 86, kept 0.001998; 0.0005 of it went for 22 less 0.022.
    cost = Decimal(86) * Decimal("0.0005") / Decimal("0.001998")
    assert dec(live.trades()[-1]["RealizedPnL"]) == round(Decimal("21.978") - cost, 8)
    (position,) = positions(live)
    assert dec(position["quantity"]) == Decimal("0.001498")
    assert dec(position["cost"]) == pytest.approx(86 - cost)
    assert counts(live) == {"trades_today": 1, "open_trades": 1}
    exchange.set_price("BTCUSDT", 43000)
    second = live.post(symbol="BTCUSDT", action="sell", strategy="the rest")
    assert (second["status"], dec(second["quantity"])) == ("FILLED", Decimal("0.00149"))
    assert counts(live) == {"trades_today": 1, "open_trades": 0}


def test_a_buy_that_found_no_seller_holds_nothing(live: Daemon, exchange: FakeBinance) -> None:
    exchange.set_book("BTCUSDT", asks=[])
    reply = live.post(symbol="BTCUSDT", action="buy", quantity="0.00023")
    assert (reply["status"], reply["quantity"]) == ("EXPIRED", 0)
    assert (positions(live), live.trades()[-1]["Quantity"]) == ([], "0")
    assert counts(live) == {"trades_today": 1, "open_trades": 0}


# --- limit orders -----------------------------------------------------------------------------------------------------


def test_a_limit_order_is_followed_from_resting_over_partly_filled_to_filled(
    live: Daemon, exchange: FakeBinance
) -> None:
    reply = live.post(symbol="BTCUSDT", action="buy", type="LIMIT", price="40000.009", quantity="0.00025")
    (order,) = exchange.orders
    assert (order.type, order.price, order.quantity, order.time_in_force) == (
        "LIMIT", Decimal("40000"), Decimal("0.00025"), "GTC",
    )  # fmt: skip
    assert (reply.status, reply["success"], reply["status"]) == (200, True, "NEW")
    assert (reply["orderId"], reply["client_order_id"]) == (str(order.order_id), order.client_id)
    assert counts(live) == {"trades_today": 1, "open_trades": 1}
    exchange.fill(order.order_id, "0.0001")
    wait_for_status(live, order, "PARTIALLY_FILLED")
    assert dec(positions(live)[0]["quantity"]) == Decimal("0.0000999")
    exchange.fill(order.order_id)
    wait_for_status(live, order, "FILLED")
    rows = [(row["Status"], row["Quantity"], row["TradeAmount"], row["Fee"]) for row in live.trades()]
    assert rows == [
        ("NEW", "0.00025", "10", ""),
        ("PARTIALLY_FILLED", "0.0001", "4", "0.0000001"),
        ("FILLED", "0.00025", "10", "0.00000025"),
    ]
    (position,) = positions(live)
    assert (dec(position["quantity"]), dec(position["cost"])) == (Decimal("0.00024975"), Decimal(10))
    assert counts(live) == {"trades_today": 1, "open_trades": 1}
    assert len(exchange.calls(POST)) == 1


def test_a_limit_order_is_followed_over_a_restart(live: Daemon, exchange: FakeBinance) -> None:
    live.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000, quantity="0.00025")
    (order,) = exchange.orders
    exchange.fill(order.order_id, "0.0001")
    wait_for_status(live, order, "PARTIALLY_FILLED")
    live.restart()
    assert counts(live) == {"trades_today": 1, "open_trades": 1}
    exchange.fill(order.order_id, "0.00005")
    eventually(lambda: live.trades()[-1]["Quantity"] == "0.00015", 5, lambda: "not followed any more")
    live.kill()
    exchange.fill(order.order_id)
    live.start()
    wait_for_status(live, order, "FILLED")
    (position,) = positions(live)
    assert (dec(position["quantity"]), dec(position["cost"])) == (Decimal("0.00024975"), Decimal(10))
    assert [row["Status"] for row in live.trades()] == ["NEW", "PARTIALLY_FILLED", "PARTIALLY_FILLED", "FILLED"]
    assert_csvs_equal_journal(live)


@pytest.mark.parametrize("executed", [None, "0.0002"])
def test_a_limit_order_cancelled_by_hand_at_the_exchange_ends_here_too(
    live: Daemon, exchange: FakeBinance, executed: str | None
) -> None:
    live.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000, quantity="0.00025")
    (order,) = exchange.orders
    if executed:
        exchange.fill(order.order_id, executed)
    the_owner(exchange).cancel_order(symbol="BTCUSDT", orderId=order.order_id)
    wait_for_status(live, order, "CANCELED")
    row = live.trades()[-1]
    assert (row["Status"], row["Quantity"]) == ("CANCELED", executed or "0")
    assert live.orders_without_ending() == []
    assert counts(live) == {"trades_today": 1, "open_trades": 1 if executed else 0}
    assert [dec(p["quantity"]) for p in positions(live)] == ([Decimal("0.0001998")] if executed else [])


def test_a_limit_sell_keeps_what_it_sells_from_being_sold_by_another_exit(live: Daemon, exchange: FakeBinance) -> None:
    live.post(symbol="BTCUSDT", action="buy")
    live.post(symbol="BTCUSDT", action="sell", type="LIMIT", price=50000, quantity="0.0002")
    half = live.post(symbol="BTCUSDT", action="sell", quantity="0.0002")
    assert (half["decision"], half["check"]) == ("REJECTED", "insufficient_balance")
    exchange.fill(exchange.orders[1].order_id)
    wait_for_status(live, exchange.orders[1], "FILLED")
    profit = 10 - Decimal("0.01") - Decimal("9.89") * Decimal("0.0002") / Decimal("0.00022977")
    assert dec(live.trades()[-1]["RealizedPnL"]) == round(profit, 8)
    assert counts(live) == {"trades_today": 1, "open_trades": 0}


# --- refused before anything leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alert", "check", "reason"),
    [
        ({"amount_usdt": "4.99"}, "min_notional", "Order size too small: 4.99"),
        ({"quantity": "0.00011"}, "min_notional", "Order size too small: 4.73"),
        ({"quantity": "0.000009"}, "min_notional", "Order size too small: 0, smallest is 0.00001"),
        ({"quantity": "0.000200001"}, "precision", "Invalid quantity precision: 0.000200001"),
        ({"symbol": "NOPEUSDT"}, "symbol", "Invalid symbol: BINANCE does not trade NOPEUSDT"),
        ({"symbol": "SOLUSDT"}, "symbol", "Invalid symbol: SOLUSDT is not open for trading"),
        ({"symbol": "ETHUSDT", "type": "LIMIT", "price": 3000}, "symbol", "Invalid symbol: ETHUSDT takes no LIMIT"),
    ],
)
def test_what_the_exchange_would_refuse_is_refused_here_and_never_sent(
    live: Daemon, exchange: FakeBinance, alert: dict[str, Any], check: str, reason: str
) -> None:
    exchange.set_symbol("SOLUSDT", status="BREAK")
    exchange.set_symbol("ETHUSDT", orderTypes=["MARKET"])
    reply = live.post(**({"symbol": "BTCUSDT", "action": "buy"} | alert))
    assert (reply.status, reply["success"], reply["decision"], reply["check"]) == (200, False, "REJECTED", check)
    assert reply["reason"].startswith(reason)
    assert (exchange.calls(POST), live.trades()) == ([], [])
    row = live.signals()[-1]
    assert (row["Decision"], row["Check"], row["Reason"]) == ("REJECTED", check, reply["reason"].replace(";", ","))
    assert counts(live) == {"trades_today": 0, "open_trades": 0}


def test_the_smallest_order_that_the_exchange_takes_is_taken(live: Daemon, exchange: FakeBinance) -> None:
    assert live.post(symbol="BTCUSDT", action="buy", quantity="0.00012")["status"] == "FILLED"
    exchange.set_price("BTCUSDT", 50000)
    assert live.post(symbol="BTCUSDT", action="buy", amount_usdt=5)["status"] == "FILLED"


# --- ways out ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resting", ["buy", "sell"])
def test_a_full_exit_cancels_what_rests_first_and_then_sells_everything(
    live: Daemon, exchange: FakeBinance, resting: str
) -> None:
    live.post(symbol="BTCUSDT", action="buy")
    price, quantity = (40000, "0.0002") if resting == "buy" else (50000, "0.00022")
    live.post(symbol="BTCUSDT", action=resting, type="LIMIT", price=price, quantity=quantity)
    leave = live.post(symbol="BTCUSDT", action="sell", strategy="out")
    bought, rested, sold = exchange.orders
    assert (bought.status, rested.status) == ("FILLED", "CANCELED")
    assert_reply(leave, sold, "FILLED")
    assert sold.executed == Decimal("0.00022")
    cancel, last_post = exchange.calls(CANCEL)[-1], exchange.calls(POST)[-1]
    assert (cancel.params["origClientOrderId"], cancel.number < last_post.number) == (rested.client_id, True)
    assert statuses(live)[rested.client_id] == "CANCELED"
    assert (positions(live), live.orders_without_ending()) == ([], [])
    assert exchange.locked("USDT") == exchange.locked("BTC") == 0


def test_a_full_exit_sells_also_what_a_resting_order_got_before_it_was_cancelled(
    live: Daemon, exchange: FakeBinance
) -> None:
    live.post(symbol="BTCUSDT", action="buy")
    live.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000, quantity="0.00025")
    exchange.fill(exchange.orders[1].order_id, "0.0001")
    leave = live.post(symbol="BTCUSDT", action="close")
    # 0.00022977 of the first and 0.0000999 of the second.
    assert (leave["status"], dec(leave["quantity"])) == ("FILLED", Decimal("0.00032"))
    assert exchange.orders[1].status == "CANCELED"
    assert counts(live) == {"trades_today": 2, "open_trades": 0}


@pytest.mark.parametrize("executed", [True, False])
def test_a_cancellation_whose_reply_is_lost_is_looked_up_before_the_exit_goes(
    live: Daemon, exchange: FakeBinance, executed: bool
) -> None:
    live.post(symbol="BTCUSDT", action="buy")
    live.post(symbol="BTCUSDT", action="sell", type="LIMIT", price=50000, quantity="0.00022")
    exchange.fail_next("close", where=CANCEL, executed=executed)
    leave = live.post(symbol="BTCUSDT", action="sell", strategy="out")
    assert [order.status for order in exchange.orders] == ["FILLED", "CANCELED", "FILLED"]
    assert_reply(leave, exchange.orders[2], "FILLED")
    assert len(exchange.calls(CANCEL)) == (1 if executed else 2)


def test_a_resting_sell_that_fills_while_it_is_cancelled_leaves_the_exit_nothing_to_sell(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.set_balance("BTC", 1)
    live.post(symbol="BTCUSDT", action="buy")
    live.post(symbol="BTCUSDT", action="sell", type="LIMIT", price=50000, quantity="0.00022")
    exchange.fail_next("delay", where=CANCEL, seconds=0.5)
    with ThreadPoolExecutor(1) as pool:
        leave = pool.submit(lambda: live.post(symbol="BTCUSDT", action="sell", strategy="out"))
        exchange.wait_for(lambda fake: len(fake.calls(CANCEL)) == 1)
        exchange.fill(exchange.orders[1].order_id)
    assert (leave.result()["status"], leave.result()["success"]) == ("NOT_PLACED", False)
    assert [order.status for order in exchange.orders] == ["FILLED", "FILLED"]
    assert exchange.free("BTC") == 1 + Decimal("0.00000977")
    assert positions(live) == []


def test_an_exit_for_nothing_but_a_resting_entry_cancels_it(live: Daemon, exchange: FakeBinance) -> None:
    live.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000, quantity="0.00025")
    leave = live.post(symbol="BTCUSDT", action="close")
    assert (leave["success"], leave["status"], leave["quantity"]) == (False, "NOT_PLACED", 0)
    assert leave["reason"] == "nothing left to sell: nothing is held"
    assert [order.status for order in exchange.orders] == ["CANCELED"]
    assert live.orders_without_ending() == []


def test_an_exit_while_the_entry_is_in_flight_waits_for_it_and_then_sells(live: Daemon, exchange: FakeBinance) -> None:
    exchange.fail_next("delay", executed=True, seconds=0.8)
    with ThreadPoolExecutor(1) as pool:
        entry = pool.submit(lambda: live.post(symbol="BTCUSDT", action="buy"))
        exchange.wait_for(lambda fake: len(fake.calls(POST)) == 1)
        leave = live.post(symbol="BTCUSDT", action="sell")
    assert entry.result()["status"] == "FILLED"
    assert_reply(leave, exchange.orders[1], "FILLED")
    assert exchange.orders[1].executed == Decimal("0.00022")
    assert leave["reason"].startswith("Accepted exit: waits for the orders of BTCUSDT")
    first, second = exchange.calls(POST)
    assert second.time_ms - first.time_ms >= 800
    assert counts(live) == {"trades_today": 1, "open_trades": 0}


def test_exits_at_the_same_moment_sell_once(live: Daemon, exchange: FakeBinance) -> None:
    exchange.set_balance("BTC", 5)
    live.post(symbol="BTCUSDT", action="buy")
    exchange.fail_next("delay", executed=True, seconds=0.5)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda n: live.post(symbol="BTCUSDT", action="sell", strategy=f"s{n}"), range(4)))
    assert [order.side for order in exchange.orders] == ["BUY", "SELL"]
    assert sorted(reply["status"] for reply in replies) == ["FILLED"] + ["NOT_PLACED"] * 3
    assert [reply["success"] for reply in replies].count(True) == 1
    for reply in replies:
        assert reply["success"] or "nothing left to sell" in reply["reason"]


def test_an_exit_with_a_quantity_may_also_sell_what_the_account_held_before(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.set_balance("BTC", 1)
    eventually(lambda: "BTC" in live.owner_get("/status")["balances"]["BINANCE"], 5, lambda: "no BTC in sight")
    live.post(symbol="BTCUSDT", action="buy")
    reply = live.post(symbol="BTCUSDT", action="sell", quantity="0.5")
    assert_reply(reply, exchange.orders[1], "FILLED")
    assert exchange.free("BTC") == Decimal("0.50022977")
    # Only what was bought here earns or loses: its share of the proceeds, less what it cost.
    share = Decimal("0.00022977") / Decimal("0.5")
    profit = Decimal("21500") * Decimal("0.999") * share - Decimal("9.89")
    assert dec(live.trades()[-1]["RealizedPnL"]) == round(profit, 8)
    assert (positions(live), counts(live)) == ([], {"trades_today": 1, "open_trades": 0})


def test_an_exit_with_more_than_the_account_holds_is_refused_and_never_sent(
    live: Daemon, exchange: FakeBinance
) -> None:
    exchange.set_balance("BTC", 1)
    live.post(symbol="BTCUSDT", action="buy")
    eventually(lambda: account(live)["balances"].get("BTC", {}).get("free", 0) > 1, 5, lambda: "no fresh balance")
    reply = live.post(symbol="BTCUSDT", action="sell", quantity="1.001")
    assert (reply["decision"], reply["check"]) == ("REJECTED", "insufficient_balance")
    assert reply["reason"] == "Insufficient balance: 1.001 to sell, 1.00022977 held"
    assert len(exchange.calls(POST)) == 1
    assert live.post(symbol="BTCUSDT", action="sell")["status"] == "FILLED"


def test_an_exit_is_not_refused_for_an_estimate_that_the_exchange_does_not_share(
    live: Daemon, exchange: FakeBinance
) -> None:
    live.post(symbol="BTCUSDT", action="buy", quantity="0.00013")
    # 0.00012 left to sell: 4.92 USDT at the last price, 5.16 at the average price that the exchange judges by.
    exchange.set_price("BTCUSDT", 41000)
    exchange.set_average_price("BTCUSDT", 43000)
    live.restart()
    reply = live.post(symbol="BTCUSDT", action="sell")
    assert (reply["check"], reply["status"], dec(reply["quantity"])) == (None, "FILLED", Decimal("0.00012"))


def test_close_all_sells_every_position_and_cancels_every_resting_order_even_while_paused(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    live = daemon_with(**binance(exchange, paper_balance_usdt=100, allowed_strategies="trend")).start()
    for symbol in ("BTCUSDT", "SOLUSDT"):
        assert live.post(symbol=symbol, action="buy", strategy="trend")["status"] == "FILLED"
    live.post(symbol="BNBUSDT", action="buy", type="LIMIT", price=500, quantity="0.02", strategy="trend")
    live.owner_post("/pause")
    answer = live.owner_post("/close-all")
    assert (answer.status, answer["closed"]) == (200, 2)
    told = [result["status"] for result in answer["results"]]
    assert sorted(told) == ["FILLED", "FILLED", "NOT_PLACED"]
    bought = {order.symbol: order.status for order in exchange.orders if order.is_buy}
    sold = {order.symbol: order.status for order in exchange.orders if not order.is_buy}
    assert bought == {"BTCUSDT": "FILLED", "SOLUSDT": "FILLED", "BNBUSDT": "CANCELED"}
    assert sold == {"BTCUSDT": "FILLED", "SOLUSDT": "FILLED"}
    assert (positions(live), live.orders_without_ending()) == ([], [])
    assert [row["Decision"] for row in live.signals() if row["Strategy"] == "close-all"] == ["ACCEPTED"] * 3
    assert live.owner_post("/close-all")["closed"] == 0


def test_close_all_does_not_count_as_closed_what_could_not_be_sold(live: Daemon, exchange: FakeBinance) -> None:
    live.post(symbol="BTCUSDT", action="buy")
    exchange.go_offline()
    answer = live.owner_post("/close-all")
    assert [(result["success"], result["status"]) for result in answer["results"]] == [(False, "NOT_PLACED")]
    assert answer["closed"] == 0
    exchange.come_online()
    assert live.owner_post("/close-all")["closed"] == 1
    assert positions(live) == []


def test_close_all_does_not_count_as_closed_what_is_still_under_way(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    live = daemon_with(**binance(exchange), test_waits={"owner.CLOSE_ALL_SECONDS": 0.3}).start()
    live.post(symbol="BTCUSDT", action="buy")
    exchange.fail_next("delay", executed=True, seconds=1.0)
    answer = live.owner_post("/close-all")
    assert [(result["success"], result["status"]) for result in answer["results"]] == [(True, "PENDING")]
    assert answer["closed"] == 0
    live.wait_until_settled()
    assert positions(live) == []


# --- on paper ---------------------------------------------------------------------------------------------------------


def test_a_paper_limit_order_rests_until_the_price_of_a_later_alert_crosses_it(paper: Daemon) -> None:
    rests = paper.post(symbol="BTCUSDT", action="buy", type="LIMIT", price=40000, amount_usdt=10)
    assert (rests["status"], rests["success"]) == ("NEW", True)
    assert paper_usdt(paper) == {"free": 90, "locked": 10}
    assert paper.post(symbol="BTCUSDT", action="sell", price=40001, confidence=1)["check"] == "confidence"
    assert paper.orders_without_ending() != []
    # Even an alert that is refused tells the price.
    assert paper.post(symbol="BTCUSDT", action="sell", price=39000, confidence=1)["check"] == "confidence"
    eventually(lambda: paper.trades()[-1]["Status"] == "FILLED", 5, lambda: "it did not fill")
    assert [(row["Status"], row["Price"], row["Quantity"]) for row in paper.trades()] == [
        ("NEW", "40000", "0.00025"),
        ("FILLED", "40000", "0.00025"),
    ]
    assert paper_usdt(paper) == {"free": 90, "locked": 0}
    assert dec(positions(paper)[0]["quantity"]) == Decimal("0.00024975")


def test_a_paper_limit_order_can_be_cancelled_where_no_price_was_ever_seen(paper: Daemon) -> None:
    assert paper.post(symbol="ETHUSDT", action="buy", type="LIMIT", price=2000, quantity="0.004")["status"] == "NEW"
    (closed,) = paper.owner_post("/close-all")["results"]
    assert closed["decision"] == "ACCEPTED", closed
    eventually(lambda: not paper.orders_without_ending(), 5, lambda: str(paper.orders_without_ending()))
    assert [row["Status"] for row in paper.trades() if row["Action"] == "BUY"] == ["NEW", "CANCELED"]


def test_paper_balance_positions_and_resting_orders_survive_a_restart(paper: Daemon) -> None:
    paper.post(symbol="BTCUSDT", action="buy", price=43000)
    paper.post(symbol="ETHUSDT", action="buy", type="LIMIT", price=2000, amount_usdt=10)
    # 10 / 43000 on eight decimals cost 9.99965.
    assert paper_usdt(paper) == {"free": 80.00035, "locked": 10}
    before = positions(paper), account(paper, "PAPER"), counts(paper)
    paper.restart()
    assert (positions(paper), account(paper, "PAPER"), counts(paper)) == before
    paper.post(symbol="ETHUSDT", action="sell", price=1999, confidence=1)
    eventually(lambda: paper.trades()[-1]["Status"] == "FILLED", 5, lambda: "it did not fill")
    # No price in the alert: the last one that went by is used. 0.00023255 less the fee, rounded down, less the fee.
    sold = paper.post(symbol="BTCUSDT", action="sell")
    assert (sold["status"], sold["price"], dec(sold["quantity"])) == ("FILLED", 43000, Decimal("0.00023231"))
    assert dec(paper_usdt(paper)["free"]) == Decimal("80.00035") + Decimal("0.00023231") * 43000 * Decimal("0.999")


def test_a_paper_market_order_without_any_price_is_refused_and_told_what_to_do(paper: Daemon) -> None:
    reply = paper.post(symbol="BTCUSDT", action="buy")
    assert (reply["decision"], reply["check"], reply["success"]) == ("REJECTED", "price", False)
    assert 'put "price": {{close}} into the alert message' in reply["reason"]
    assert paper.trades() == []


def test_paper_money_runs_out_like_real_money(daemon_with: MakeDaemon) -> None:
    paper = daemon_with(
        paper_balance_usdt=25, max_risk_per_trade=20, trade_amount_usdt=15, min_balance_usdt=0, cooldown_seconds=0
    ).start()
    assert paper.post(symbol="BTCUSDT", action="buy", price=40000)["status"] == "FILLED"
    refused = paper.post(symbol="BTCUSDT", action="buy", price=40000, strategy="second")
    assert (refused["decision"], refused["check"]) == ("REJECTED", "insufficient_balance")
    assert refused["reason"] == "Insufficient balance: 15 needed, 10 free"
    assert paper.post(symbol="BTCUSDT", action="buy", price=40000, amount_usdt=10)["status"] == "FILLED"
    refused = paper.post(symbol="BTCUSDT", action="sell", quantity=1)
    assert (refused["decision"], refused["check"]) == ("REJECTED", "insufficient_balance")


# --- several accounts -------------------------------------------------------------------------------------------------


def test_an_alert_for_the_real_account_that_is_not_configured_goes_nowhere_else(
    live: Daemon, exchange: FakeBinance
) -> None:
    for action in ("buy", "sell", "close"):
        reply = live.post(broker="BINANCE_REAL", symbol="BTCUSDT", action=action)
        assert (reply.status, reply["decision"], reply["check"]) == (200, "REJECTED", "broker")
        assert reply["reason"].startswith("Broker not configured: BINANCE_REAL")
        assert (reply["success"], reply["orderId"], reply["broker"]) == (False, None, "BINANCE_REAL")
    # Not even a question about the symbol.
    assert {call.path for call in exchange.requests} <= {"/api/v3/time", "/api/v3/account", "/api/v3/openOrders"}
    assert (live.trades(), positions(live)) == ([], [])
    assert [row["Broker"] for row in live.signals()] == ["BINANCE_REAL"] * 3


def test_the_test_account_and_the_real_one_never_mix(daemon_with: MakeDaemon, exchange: FakeBinance) -> None:
    key, secret = "r" * 64, "t" * 64
    with FakeBinance(key, secret, balances={"USDT": 500}) as real:
        real.set_price("BTCUSDT", 50000)
        settings = binance(exchange, cooldown_seconds=0, binance_real_api_key=key, binance_real_api_secret=secret)
        both = daemon_with(**settings, binance_real_api_url=real.api_url).start()
        assert both.post(symbol="BTCUSDT", action="buy")["price"] == 43000
        assert both.post(symbol="BTCUSDT", action="buy", broker="BINANCE_REAL")["price"] == 50000
        held = {p["broker"]: (dec(p["quantity"]), dec(p["cost"])) for p in positions(both)}
        assert held == {
            "BINANCE": (Decimal("0.00022977"), Decimal("9.89")),
            "BINANCE_REAL": (Decimal("0.0001998"), Decimal(10)),
        }
        # A way out of one account leaves the other alone, trouble in one too.
        real.fail_next("close", executed=True)
        real.fail_next("status", where="GET /api/v3/order", status=503, times=1000)
        pending = both.post(symbol="BTCUSDT", action="sell", broker="BINANCE_REAL")
        assert (pending.status, pending["status"]) == (202, "PENDING")
        entry = both.post(symbol="BTCUSDT", action="buy", broker="BINANCE_REAL", strategy="more")
        assert entry["check"] == "unresolved"
        assert both.post(symbol="BTCUSDT", action="buy", strategy="more")["status"] == "FILLED"
        assert both.post(symbol="BTCUSDT", action="sell")["status"] == "FILLED"
        real.clear_faults()
        both.wait_until_settled()
        assert [(order.side, order.executed) for order in exchange.orders] == [
            ("BUY", Decimal("0.00023")),
            ("BUY", Decimal("0.00023")),
            ("SELL", Decimal("0.00045")),
        ]
        assert [(order.side, order.executed) for order in real.orders] == [
            ("BUY", Decimal("0.00020")),
            ("SELL", Decimal("0.00019")),
        ]
        assert set(real.orders_by_client_id).isdisjoint(exchange.orders_by_client_id)
        for row in both.trades():
            here = real if row["Broker"] == "BINANCE_REAL" else exchange
            assert row["ClientOrderID"] in here.orders_by_client_id
        eventually(
            lambda: (
                [dec(account(both, name)["balances"]["USDT"]["free"]) for name in ("BINANCE", "BINANCE_REAL")]
                == [exchange.free("USDT"), real.free("USDT")]
            ),
            8,
            lambda: "the accounts are not shown as they are",
        )


# --- the sums ---------------------------------------------------------------------------------------------------------


def test_average_cost_and_profit_are_the_same_everywhere_and_as_worked_out_by_hand(
    daemon_with: MakeDaemon, exchange: FakeBinance
) -> None:
    live = daemon_with(**binance(exchange, cooldown_seconds=0, max_risk_per_trade=1000)).start()
    exchange.set_price("BTCUSDT", 40000)
    live.post(symbol="BTCUSDT", action="buy", quantity="0.002")
    exchange.set_price("BTCUSDT", 50000)
    live.post(symbol="BTCUSDT", action="buy", quantity="0.001")
    exchange.set_price("BTCUSDT", 60000)
    live.post(symbol="BTCUSDT", action="sell", quantity="0.0015")
    # Bought 0.003 less 0.000003 for 80 + 50; sold half of 0.003 for 90 less 0.09.
    held, cost = Decimal("0.002997"), Decimal(130)
    first = Decimal("89.91") - cost * Decimal("0.0015") / held
    held, cost = held - Decimal("0.0015"), cost - cost * Decimal("0.0015") / held
    (position,) = positions(live)
    assert dec(position["quantity"]) == held == Decimal("0.001497")
    assert dec(position["cost"]) == pytest.approx(cost)
    assert dec(position["average_price"]) == pytest.approx(Decimal(130) / Decimal("0.002997"))
    assert dec(position["realized_pnl"]) == pytest.approx(first)
    assert dec(live.trades()[-1]["RealizedPnL"]) == round(first, 8)
    # First in, first out: a part of the first buy is left.
    assert counts(live) == {"trades_today": 2, "open_trades": 2}

    exchange.set_price("BTCUSDT", 30000)
    live.post(symbol="BTCUSDT", action="sell", strategy="stop")
    second = Decimal("0.00149") * 30000 * Decimal("0.999") - cost * Decimal("0.00149") / held
    assert dec(live.trades()[-1]["RealizedPnL"]) == round(second, 8)
    assert positions(live) == []
    summary = live.owner_get("/account/summary")
    assert dec(summary["realized_pnl"]) == pytest.approx(first + second)
    assert dec(summary["realized_pnl_today"]) == pytest.approx(first + second)
    total = sum(dec(row["RealizedPnL"]) for row in live.trades() if row["RealizedPnL"])
    assert dec(summary["realized_pnl"]) == pytest.approx(total)
    paid = 1000 - Decimal(130) + Decimal("89.91") + Decimal("0.00149") * 30000 * Decimal("0.999")
    assert exchange.free("USDT") == paid
    eventually(lambda: dec(account(live)["cash_usdt"]) == paid, 8, lambda: f"{account(live)} instead of {paid}")
    live.restart()
    assert dec(live.owner_get("/account/summary")["realized_pnl"]) == pytest.approx(first + second)


# --- helpers ----------------------------------------------------------------------------------------------------------


def dec(value: object) -> Decimal:
    return Decimal(str(value))


def assert_reply(reply: Reply, order: Order, status: str) -> None:
    """The reply tells what the exchange did."""
    assert (reply.status, reply["success"], reply["error"], reply["decision"]) == (200, True, None, "ACCEPTED")
    assert (reply["status"], order.status) == (status, status)
    assert (reply["orderId"], reply["client_order_id"]) == (str(order.order_id), order.client_id)
    assert dec(reply["quantity"]) == order.executed
    assert dec(reply["price"]) == pytest.approx(order.quote_executed / order.executed)


def the_owner(exchange: FakeBinance) -> Client:
    """Somebody at the exchange's own page."""
    client = Client(API_KEY, API_SECRET, ping=False)
    client.API_URL = exchange.api_url
    return client


def wait_for_status(daemon: Daemon, order: Order, status: str) -> None:
    """In the journal, and in the CSV file, which follows a moment later."""
    eventually(lambda: statuses(daemon).get(order.client_id) == status, 5, lambda: str(statuses(daemon)))
    assert_csvs_equal_journal(daemon)


def statuses(daemon: Daemon) -> dict[str, str]:
    return {o["client_order_id"]: o["status"] for o in daemon.owner_get("/executions")["executions"]}


def positions(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.owner_get("/positions")["positions"]
    return found


def account(daemon: Daemon, broker: str = "BINANCE") -> dict[str, Any]:
    accounts = {each["broker"]: each for each in daemon.owner_get("/account/summary")["accounts"]}
    found: dict[str, Any] = accounts[broker]
    return found


def paper_usdt(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = account(daemon, "PAPER")["balances"]["USDT"]
    return found


def counts(daemon: Daemon) -> dict[str, int]:
    status = daemon.owner_get("/status")
    return {name: status[name] for name in ("trades_today", "open_trades")}
