"""The figures, each against an example worked by hand; and the facts they are made of, read bit by bit."""

# mypy: disable-error-code="comparison-overlap"
# A Decimal equals the whole number that a test writes for it.

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, RULES, D, S, an_exit, an_order
from fake_binance import FakeBinance
from harness import SECRET, Daemon, binance

import trade_history
from app import create_app
from config import Settings
from events import Decided, Event, OrderChanged
from history import Wanted
from journal import Journal, JournalError
from models import Action, Decision, DecisionRecord, Fee, Order, OrderType, Side, Signal
from performance import (
    EquityPoint,
    Facts,
    Figures,
    Paid,
    Performance,
    daily,
    equity_drawdown_percent,
    facts_of,
    figures,
    max_drawdown,
    performance,
    sharpe,
    slippage_bps,
)
from replies import performance_view, to_json
from trade_history import TradeHistory
from wiring import open_gatehouse


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


def a_trade(pnl: str | None, days: float = 0, **changes: Any) -> Facts:
    realized = None if pnl is None else D(pnl)
    facts = Facts(day(days), "BTCUSDT", "trend", "BINANCE", "USDT", pnl is None, True, realized)
    return replace(facts, **changes)


def of(*pnls: str | None) -> Figures:
    return figures([a_trade(pnl, days) for days, pnl in enumerate(pnls)], "USDT")


def of_all(*facts: Facts, brokers: tuple[str, ...] = ("BINANCE",), **wanted: Any) -> Performance:
    return performance(facts, (), Wanted(**wanted), brokers)


# --- worked by hand ---------------------------------------------------------------------------------------------------


def test_profits_and_losses_of_five_trades() -> None:
    """+10, -4, +6, -8, 0. Wins 10 + 6 = 16, losses 4 + 8 = 12.

    P&L 16 - 12 = 4; win rate 2 of 5 = 40 %; profit factor 16 / 12 = 1.3333; average win 16 / 2 = 8, loss -12 / 2 = -6.
    """
    found = of("10", "-4", None, "6", "-8", "0")
    assert (found.orders, found.trades, found.wins, found.losses) == (6, 5, 2, 2)
    assert (found.realized_pnl, found.win_rate_percent, found.profit_factor) == (D(4), D(40), D("1.3333"))
    assert (found.average_win, found.average_loss) == (D(8), D(-6))
    assert (found.largest_win, found.largest_loss) == (D(10), D(-8))


def test_without_losses_there_is_no_profit_factor() -> None:
    found = of("3", "5", "0")
    assert (found.profit_factor, found.average_loss, found.largest_loss) == (None, None, None)
    assert (found.win_rate_percent, found.max_drawdown) == (D("66.6667"), 0)


def test_without_wins_the_profit_factor_is_nothing() -> None:
    found = of("-3")
    assert (found.profit_factor, found.win_rate_percent, found.average_win, found.largest_win) == (0, 0, None, None)


def test_without_trades_there_is_little_to_say() -> None:
    found = of()
    none = (found.win_rate_percent, found.profit_factor, found.average_win, found.average_loss, found.sharpe)
    assert {*none, found.largest_win, found.largest_loss, found.median_latency_ms} == {None}
    assert (found.realized_pnl, found.trades, found.max_drawdown, found.fees, found.other_fees) == (0, 0, 0, 0, ())
    assert (found.entry_slippage.orders, found.entry_slippage.median_bps) == (0, None)


@pytest.mark.parametrize(
    ("pnls", "deepest"),
    [
        ([], 0),
        ([5, 5], 0),
        ([-3], 3),  # below the 0 it began at
        ([-3, -2, 4], 5),
        # Sums 10, 6, 12, 4, 5, 20, 13: from 10 to 6 are 4, from 12 to 4 are 8, from 20 to 13 are 7.
        ([10, -4, 6, -8, 1, 15, -7], 8),
    ],
)
def test_the_drawdown_is_the_deepest_fall_from_the_highest_point_before_it(pnls: list[int], deepest: int) -> None:
    assert max_drawdown(map(Decimal, pnls)) == deepest


def equity(*worths: str) -> list[EquityPoint]:
    return [EquityPoint(day(number), D(worth)) for number, worth in enumerate(worths)]


def test_the_drawdown_of_the_equity_is_in_percent_of_the_highest_point() -> None:
    """1000 to 900 are 10 %, 1200 to 1020 are 180 / 1200 = 15 %, at the end 1500 to 1400 are 6.67 %."""
    assert equity_drawdown_percent(equity("1000", "900", "1200", "1100", "1020", "1500", "1400")) == 15
    assert equity_drawdown_percent(equity("1000", "1000")) == 0
    assert equity_drawdown_percent(equity("1000")) is None
    assert equity_drawdown_percent([]) is None
    assert equity_drawdown_percent(equity("0", "0")) == 0


def test_days_without_trades_count_as_days_without_profit() -> None:
    """Day 0: +4 and +2 = 6; day 1: none = 0; day 2: -3; so days 6, 0, -3 with the mean 1.

    Squares (6-1)² + (0-1)² + (-3-1)² = 25 + 1 + 16 = 42, over n - 1 = 2: 21; root 4.582576. 1 / 4.582576 = 0.218218,
    times the root of 365 = 19.104973: 4.1690.
    """
    trades = [a_trade("4"), a_trade("2", 0.1), a_trade("-3", 2)]
    days = daily(trades)
    assert [(str(one.date), one.realized_pnl, one.trades) for one in days] == [
        ("2026-03-01", 6, 2),
        ("2026-03-03", -3, 1),
    ]
    assert sharpe(days) == D("4.1690")
    assert figures(trades, "USDT").sharpe == D("4.1690")


def test_one_day_or_days_that_are_alike_have_no_sharpe_ratio() -> None:
    assert sharpe(daily([a_trade("4"), a_trade("2")])) is None
    assert sharpe(daily([a_trade("4"), a_trade("4", 1)])) is None
    assert sharpe(()) is None


def test_a_day_ends_at_midnight_in_utc() -> None:
    midnight = NOW.replace(hour=0) + timedelta(days=1)
    late = a_trade("1", at=midnight - timedelta(microseconds=1))
    assert [one.trades for one in daily([late, a_trade("1", at=midnight)])] == [1, 1]
    elsewhere = midnight.astimezone(timezone(timedelta(hours=-5)))
    assert [str(one.date) for one in daily([a_trade("1", at=elsewhere)])] == ["2026-03-02"]


def test_fees_are_added_by_their_asset_and_dollars_are_dollars() -> None:
    paid = [
        (Fee("BTC", D("0.001")),),
        (Fee("USDT", D("0.5")), Fee("BNB", D("0.02"))),
        (Fee("USDC", D("0.25")), Fee("BNB", D("0.01")), Fee("BNB", D("0.1"), D("60"))),
    ]
    orders = (facts_of(an_exit(status=S.FILLED, executed_quantity=D(1), fees=fees), NOW, None, None) for fees in paid)
    found = figures([facts for facts in orders if facts], "USDT")
    assert found.fees == D("60.75"), "with what a fee in BNB is known to have been worth"
    assert found.other_fees == (Paid("BNB", D("0.03")), Paid("BTC", D("0.001")))


def test_latency_is_the_middle_one_or_the_mean_of_the_middle_two() -> None:
    waits = [a_trade(None, latency_ms=wait) for wait in (90.0, 10.0, 40.0)]
    assert figures(waits, "USDT").median_latency_ms == 40
    assert figures([*waits, a_trade(None, latency_ms=20.0), a_trade(None)], "USDT").median_latency_ms == 30


# --- slippage ---------------------------------------------------------------------------------------------------------


def filled_at(price: str, order: Order) -> Order:
    return replace(order, status=S.FILLED, executed_quantity=D(2), executed_quote=2 * D(price))


@pytest.mark.parametrize(
    ("order", "price", "bps"),
    [
        (an_order(), "100.5", 50),  # bought for 0.5 % more than the alert's 100
        (an_order(), "99.9", -10),
        (an_exit(), "99", 100),  # sold for 1 % less
        (an_exit(), "100.01", -1),
        (an_exit(side=Side.BUY, leg="exit"), "102", 200),  # a short bought back for 2 % more
        (an_order(side=Side.SELL), "98", 200),  # a short opened for 2 % less
    ],
)
def test_worse_than_the_alerts_price_is_positive_whichever_way(order: Order, price: str, bps: int) -> None:
    assert slippage_bps(filled_at(price, order), D(100)) == bps


@pytest.mark.parametrize(
    "order",
    [
        an_order(type=OrderType.LIMIT), an_exit(type=OrderType.STOP, leg="stop_loss"), an_exit(leg="by_hand"),
    ],
)  # fmt: skip
def test_only_market_orders_that_an_alert_asked_for_slip(order: Order) -> None:
    assert slippage_bps(filled_at("101", order), D(100)) is None


def test_nothing_executed_or_no_price_is_no_slippage() -> None:
    assert slippage_bps(an_order(S.REJECTED), D(100)) is None
    assert slippage_bps(filled_at("101", an_order()), None) is None


def test_entries_and_exits_slip_apart_with_median_and_mean() -> None:
    """Entries 1, 2, 9: median 2, mean 12 / 3 = 4. Exits -3, 5: median and mean (-3 + 5) / 2 = 1."""
    entries = [a_trade(None, slippage_bps=bps) for bps in (9.0, 1.0, 2.0)]
    exits = [a_trade("1", slippage_bps=bps) for bps in (5.0, -3.0)]
    found = figures([*entries, *exits, a_trade("1")], "USDT")
    assert (found.entry_slippage.orders, found.entry_slippage.median_bps, found.entry_slippage.mean_bps) == (3, 2, 4)
    assert (found.exit_slippage.orders, found.exit_slippage.median_bps, found.exit_slippage.mean_bps) == (2, 1, 1)


# --- what is added to what --------------------------------------------------------------------------------------------


def test_money_of_two_currencies_is_never_added() -> None:
    found = of_all(a_trade("5"), a_trade("7", currency="EUR", symbol="BTCEUR"), a_trade("100", currency="BTC"))
    assert (found.total.currency, found.total.realized_pnl) == ("USDT", 5)
    assert [(other.currency, other.realized_pnl) for other in found.others] == [("BTC", 100), ("EUR", 7)]
    assert [(part.name, part.figures.currency, part.figures.realized_pnl) for part in found.by_strategy] == [
        ("trend", "BTC", 100), ("trend", "EUR", 7), ("trend", "USDT", 5),
    ]  # fmt: skip
    assert [one.realized_pnl for one in found.daily] == [5]


def test_where_nothing_is_in_dollars_the_total_is_in_what_there_is() -> None:
    assert of_all(a_trade("7", currency="EUR")).total.currency == "EUR"
    assert of_all().total.currency == "USDT"


@pytest.mark.parametrize(("asset", "currency"), [("USDC", "USDT"), ("FDUSD", "USDT"), ("EUR", "EUR")])
def test_every_dollar_counts_as_one_usdt(asset: str, currency: str) -> None:
    order = an_exit(rules=replace(RULES, quote_asset=asset), status=S.FILLED, executed_quantity=D(1))
    facts = facts_of(order, NOW, None, None)
    assert facts is not None
    assert facts.currency == currency


def test_play_money_is_not_added_to_real_money_but_shown_beside_it() -> None:
    found = of_all(a_trade("5"), a_trade("900", broker="PAPER"))
    assert found.total.realized_pnl == 5
    assert [part.figures.realized_pnl for part in found.by_symbol] == [5]
    assert [(part.name, part.figures.realized_pnl) for part in found.by_broker] == [("BINANCE", 5), ("PAPER", 900)]


@pytest.mark.parametrize(
    ("wanted", "pnl"),
    [
        ({}, 15), ({"symbol": "ETHUSDT"}, 2), ({"strategy": "swing"}, 4), ({"symbol": "X"}, 0),
        ({"since": day(2)}, 12), ({"since": day(2.001)}, 8), ({"until": day(2)}, 3), ({"until": day(2.001)}, 7),
    ],
)  # fmt: skip
def test_only_what_is_wanted_counts(wanted: dict[str, Any], pnl: int) -> None:
    trades = [a_trade("8", 3), a_trade("1"), a_trade("2", 1, symbol="ETHUSDT"), a_trade("4", 2, strategy="swing")]
    assert of_all(*trades, **wanted).total.realized_pnl == pnl


def test_the_equity_is_of_the_time_that_is_wanted() -> None:
    points = equity("1000", "500", "400")
    found = performance((), points, Wanted(since=day(1)), ("BINANCE",))
    assert found.equity == tuple(points[1:])
    assert found.max_equity_drawdown_percent == 20


def test_each_strategy_and_symbol_has_figures_of_its_own() -> None:
    found = of_all(a_trade("5"), a_trade("-1", 1), a_trade("3", symbol="ETHUSDT", strategy=""))
    assert [(part.name, part.figures.realized_pnl) for part in found.by_strategy] == [("", 3), ("trend", 4)]
    assert [(part.name, part.figures.trades) for part in found.by_symbol] == [("BTCUSDT", 2), ("ETHUSDT", 1)]


# --- facts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


def told(number: int, *orders: Order, price: str | None = None, leg: str = "") -> list[Event]:
    """An alert and what became of its order, half a second after each other."""
    signal = Signal(Action.BUY, "BTCUSDT", price=D(price) if price else None)
    mine: dict[str, Any] = {"signal_id": f"s{number}", "client_order_id": f"gh{number}", "leg": leg}
    first = an_order(**mine)
    record = DecisionRecord(f"s{number}", f"k{number}", NOW, NOW, Decision.ACCEPTED, "", "", signal, "BINANCE", first)
    events: list[Event] = [Decided(record)]
    for index, order in enumerate(orders, 1):
        moment = NOW + timedelta(seconds=index / 2)
        settled = None if order.status in (S.SENT, S.UNKNOWN) else moment
        events.append(OrderChanged(replace(order, **mine, settled_at=settled), moment))
    return events


def everything(journal: Journal, **wanted: Any) -> Figures:
    return TradeHistory(journal.history).performance(Wanted(**wanted), ("BINANCE",)).total


def test_partial_fills_of_one_order_are_one_trade_at_its_last_change(journal: Journal) -> None:
    part = an_exit(status=S.PARTIALLY_FILLED, executed_quantity=D(1), executed_quote=D(10), realized_pnl=D(3))
    journal.append(told(1, part, replace(part, status=S.FILLED, executed_quantity=D(2), realized_pnl=D(5))))
    found = everything(journal)
    assert (found.trades, found.realized_pnl, found.orders) == (1, 5, 1)
    assert found.median_latency_ms == 500, "until the exchange's first word"
    assert everything(journal, until=NOW + timedelta(seconds=1)).trades == 0


def test_an_order_that_is_not_over_counts_with_what_it_has_done(journal: Journal) -> None:
    part = an_exit(status=S.PARTIALLY_FILLED, executed_quantity=D(1), executed_quote=D(10), realized_pnl=D(3))
    trades = TradeHistory(journal.history)
    journal.append(told(1, part))
    assert trades.performance(Wanted(), ("BINANCE",)).total.realized_pnl == 3
    journal.append(told(1, replace(part, status=S.CANCELED, realized_pnl=D(4)))[1:])
    total = trades.performance(Wanted(), ("BINANCE",)).total
    assert (total.realized_pnl, total.trades) == (4, 1)


@pytest.mark.parametrize("leg", ["", "exit"])
def test_slippage_is_against_the_price_of_the_very_alert(journal: Journal, leg: str) -> None:
    journal.append(told(1, filled_at("101", an_exit()), price="100", leg=leg) + told(2, filled_at("7", an_exit())))
    found = everything(journal)
    assert (found.exit_slippage.orders, found.exit_slippage.mean_bps) == (1, -100)


def test_records_without_a_seal_have_their_price_too(journal: Journal) -> None:
    journal.append(told(1, filled_at("101", an_exit()), price="100"))
    journal._writer.execute("UPDATE events SET body = substr(body, 1, length(body) - 9)")
    assert everything(journal).exit_slippage.mean_bps == -100


def test_a_refused_order_has_a_wait_and_one_that_never_left_has_none(journal: Journal) -> None:
    journal.append(told(1, an_order(S.REJECTED)))
    found = everything(journal)
    assert (found.orders, found.trades, found.median_latency_ms) == (0, 0, 500)
    journal.append(told(2, an_order(S.UNKNOWN), an_order(S.NOT_PLACED)) + told(3, an_order(S.NEW, sent_at=None)))
    assert len(_facts_of(journal)) == 1
    journal.append(told(4, an_order(S.UNKNOWN), an_order(S.UNKNOWN), an_order(S.FILLED)))
    assert everything(journal).median_latency_ms == 1000


def test_protection_and_what_was_done_by_hand_have_profits_but_no_latency(journal: Journal) -> None:
    stop = an_exit(leg="stop_loss", type=OrderType.STOP, status=S.FILLED, executed_quantity=D(1), realized_pnl=D(-2))
    journal.append([OrderChanged(replace(stop, settled_at=NOW), NOW)])
    found = everything(journal)
    assert (found.realized_pnl, found.trades, found.median_latency_ms) == (-2, 1, None)


def _facts_of(journal: Journal) -> dict[str, Facts]:
    trades = TradeHistory(journal.history)
    trades.catch_up()
    return trades._facts


# --- bit by bit -------------------------------------------------------------------------------------------------------


def test_each_record_is_read_once_and_in_small_bites(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    trades, asked = TradeHistory(journal.history), []

    def order_changes(after: int, until: int) -> Any:
        asked.append((after, until))
        return original(after, until)

    original = journal.history.order_changes
    monkeypatch.setattr(journal.history, "order_changes", order_changes)
    journal.append([event for number in range(25) for event in told(number, filled_at("1", an_exit()))])
    trades.catch_up()
    assert asked == [(0, 20), (20, 40), (40, 50)]
    trades.catch_up()
    journal.append(told(99, filled_at("1", an_exit())))
    trades.catch_up()
    assert asked[3:] == [(50, 52)]
    assert len(trades._facts) == 26


def test_what_was_asked_last_is_not_worked_out_again_until_something_happened(journal: Journal) -> None:
    trades, ours = TradeHistory(journal.history), ("BINANCE",)
    journal.append(told(1, filled_at("1", an_exit())))
    first = trades.performance(Wanted(), ours)
    assert trades.performance(Wanted(), ours) is first
    assert trades.performance(Wanted(symbol="X"), ours).total.orders == 0
    assert trades.performance(Wanted(), ("PAPER",)).total.orders == 0
    journal.append(told(2, filled_at("1", an_exit())))
    assert trades.performance(Wanted(), ours).total.orders == 2


def test_who_asks_need_not_wait_for_the_one_who_rests(journal: Journal) -> None:
    journal.append([event for number in range(50) for event in told(number, filled_at("1", an_exit()))])
    trades = TradeHistory(journal.history)
    gently = threading.Thread(target=trades.catch_up, args=(0.3,))
    gently.start()
    started = time.monotonic()
    assert trades.performance(Wanted(), ("BINANCE",)).total.orders == 50
    assert time.monotonic() - started < 0.3
    trades.stop()
    gently.join(2)
    assert not gently.is_alive()


def test_once_stopped_nothing_more_is_read(journal: Journal) -> None:
    trades = TradeHistory(journal.history)
    trades.stop()
    journal.append(told(1, filled_at("1", an_exit())))
    trades.catch_up()
    assert trades._facts == {}


def test_a_damaged_record_is_told_and_the_others_are_there_again_when_it_is_whole(journal: Journal) -> None:
    journal.append(told(1, filled_at("1", an_exit())))
    journal._writer.execute("UPDATE events SET body = replace(body, 'FILLED', 'EATEN')")
    trades = TradeHistory(journal.history)
    for _ in range(2):
        with pytest.raises(JournalError, match="damaged"):
            trades.catch_up()
    journal._writer.execute("UPDATE events SET body = replace(body, 'EATEN', 'FILLED')")
    trades.catch_up()
    assert len(trades._facts) == 1


MANY = 10_000


def test_the_figures_of_ten_thousand_orders_are_there_in_a_moment() -> None:
    """Measured at 80 ms with its JSON. The best of five."""
    facts = [
        a_trade(str(n % 17 - 8) if n % 2 else None, n / 50, symbol=f"C{n % 20}USDT", strategy=f"s{n % 7}",
                latency_ms=float(n % 90), slippage_bps=float(n % 9), fees=(Paid("BNB", D("0.001")),))
        for n in range(MANY)
    ]  # fmt: skip
    look = partial(performance, facts, (), Wanted(), ("BINANCE",))
    assert min(_seconds(lambda: to_json(performance_view(look()))) for _ in range(5)) <= 0.2


def _seconds(act: Callable[[], object]) -> float:
    """Of this thread's own work: others compute beside it."""
    started = time.thread_time()
    act()
    return time.thread_time() - started


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_the_figures_of_two_trades_on_paper(paper: Daemon) -> None:
    """In for 10 at 100, out at 110: 0.1 coins less 0.1 % fee are 0.0999, sold for 10.989 less 0.010989 fee, cost 10."""
    assert paper.owner_get("/performance")["trades"] == 0
    for n, (side, price) in enumerate([("buy", 100), ("sell", 110), ("buy", 110), ("sell", 100)]):
        assert paper.post(symbol="BTCUSDT", side=side, price=price, strategy="trend", comment=str(n))["success"]
    found = paper.owner_get("/performance")
    assert (found["trades"], found["wins"], found["losses"], found["orders"]) == (2, 1, 1, 4)
    assert found["brokers"] == ["PAPER"]
    assert found["currency"] == "USDT"
    assert found["largest_win"] == pytest.approx(0.978011)
    assert found["entry_slippage"] == {"orders": 2, "median_bps": 0, "mean_bps": 0}
    assert found["by_strategy"][0]["strategy"] == "trend"
    assert found["by_symbol"][0]["realized_pnl"] == found["realized_pnl"] == found["daily"][0]["realized_pnl"]
    assert found["daily"][0]["date"] == paper.today()
    assert found["sharpe"] is None
    assert paper.owner_get("/performance?symbol=ETHUSDT")["trades"] == 0
    assert paper.owner_get("/performance?since=2999-01-01")["trades"] == 0
    paper.restart()
    assert paper.owner_get("/performance") == found


def test_days_that_are_alike_but_for_the_last_digit_of_a_division_are_alike(daemon_with: Callable[..., Daemon]) -> None:
    """A seventh of what was bought is sold each day at the same price: its cost is rounded another way each time."""
    daemon = daemon_with(binance_market="futures", max_risk_per_trade=100, cooldown_seconds=0).start()
    for quantity, price in ((0.1, 50), (0.6, 51)):
        assert daemon.post(symbol="BTCUSDT", side="buy", quantity=quantity, price=price)["status"] == "FILLED"
    for days in range(5):
        daemon.move_clock(days * 86_400)
        assert daemon.post(symbol="BTCUSDT", side="sell", quantity=0.1, price=60, comment=days)["status"] == "FILLED"
        found = daemon.get("/performance", secret=SECRET)
        assert (found.status, found["trades"], found["sharpe"]) == (200, days + 1, None)
        assert len({day["realized_pnl"] for day in found["daily"]}) == 1


def test_what_a_division_leaves_behind_is_neither_a_win_nor_a_loss(journal: Journal) -> None:
    even = an_exit(status=S.FILLED, executed_quantity=D(1), executed_quote=D(10), realized_pnl=D("-1e-27"))
    journal.append([*told(1, even), *told(2, replace(even, realized_pnl=D(5)))])
    found = everything(journal)
    assert (found.trades, found.wins, found.losses, found.profit_factor) == (2, 1, 0, None)
    assert found.realized_pnl == 5


def test_no_number_is_written_that_json_does_not_know(paper: Daemon) -> None:
    raw = to_json(performance_view(of_all(a_trade("1"))))
    assert json.loads(raw, parse_constant=lambda name: pytest.fail(name))
    assert json.loads(to_json(performance_view(of_all())))["sharpe"] is None


def test_with_keys_the_testnet_counts_and_paper_only_when_asked_for(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance
) -> None:
    daemon = daemon_with(**binance(exchange, cooldown_seconds=0)).start()
    daemon.post(symbol="BTCUSDT", side="buy", price=100, broker="PAPER")
    found = daemon.owner_get("/performance")
    assert (found["brokers"], found["orders"]) == (["BINANCE"], 0)
    assert [part["broker"] for part in found["by_broker"]] == ["PAPER"]
    assert daemon.owner_get("/performance?broker=PAPER")["orders"] == 1


@pytest.mark.parametrize("query", ["since=yesterday", "until=x"])
def test_a_time_that_is_none_is_refused_by_name(paper: Daemon, query: str) -> None:
    reply = paper.get(f"/performance?{query}", secret=SECRET)
    assert reply.status == 400
    assert reply["error"].startswith(query.partition("=")[0])


def test_the_history_is_read_before_anybody_asks(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_history, "FOLLOW_SECONDS", 0.01)
    trades = TradeHistory(journal.history)

    async def a_while() -> None:
        following = asyncio.create_task(trades.follow(asyncio.to_thread))
        for number in range(2):
            journal.append(told(number, filled_at("1", an_exit())))
            await asyncio.sleep(0.2)
        following.cancel()

    asyncio.run(a_while())
    assert len(trades._facts) == 2


def test_the_daemon_begins_to_read_when_it_starts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.append(told(1, filled_at("1", an_exit(broker="PAPER"))))
    journal.close()
    routes = create_app(open_gatehouse(Settings(log_dir=tmp_path)))

    async def a_while() -> int:
        async with routes.app.router.lifespan_context(routes.app):
            await asyncio.sleep(0.3)
            return len(routes.looking.trades._facts)

    assert asyncio.run(a_while()) == 1
