# mypy: disable-error-code="comparison-overlap"
# A Decimal equals the whole number that a test writes for it.
"""What the accounts are worth: added up by hand, written when it is sure, and in nobody's way."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import BINANCE, LIMITS, NOW, RULES, D, S, an_exit, an_order, decided, done
from fake_binance import FakeBinance
from harness import Daemon, binance, eventually, futures

from accountant import Accountant, is_settled, worth
from books import Books, advanced, fold
from broker import Balance
from events import Event, OrderChanged, Valued, Worth
from journal import Journal
from market_data import Dated
from models import ZERO, Account, Fee, Instrument, Market, Order, Side
from orders import Patience
from performance import EquityPoint, equity_of, thinned
from portfolio import Position, Trade, after_trade
from risk import RiskEngine

FUTURES = Account("BINANCE", Market.FUTURES)
OFTEN = {"worth_first": 0, "worth_gap": 0.2, "worth_every": 3600, "worth_sure": 0.3}


def seconds(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


def dated(**balances: Balance) -> Dated[Any]:
    return Dated(balances, NOW)


def coins(quantity: str, cost: str = "0", **changes: Any) -> Position:
    return replace(Position("BINANCE", "BTCUSDT", RULES, D(quantity), D(cost)), **changes)


# --- worked by hand ---------------------------------------------------------------------------------------------------


def test_spot_is_worth_its_dollars_and_the_coins_that_were_bought() -> None:
    """100 free + 20 locked + 5 USDC + 0.5 coins at 300 = 275; the owner's 2 ETH, and 0.5 coins of his own, are not."""
    balances = dated(
        USDT=Balance(D(100), D(20)), USDC=Balance(D(5)), ETH=Balance(D(2)), BTC=Balance(D("0.75"), D("0.25"))
    )
    found = worth(BINANCE, balances, [coins("0.5", "100", realized_pnl=D(-7))], {"BTCUSDT": D(300)})
    assert found == Worth("BINANCE", Market.SPOT, "USDT", equity=D(275), free=D(105), realized_total=D(-7))


def test_coins_that_are_not_there_any_more_are_worth_nothing() -> None:
    """Sold by hand: their price is among the dollars already. 0.2 of 0.5 are left: 400 + 0.2 * 300 = 460."""
    found = worth(
        BINANCE, dated(USDT=Balance(D(400)), BTC=Balance(D("0.2"))), [coins("0.5", "100")], {"BTCUSDT": D(300)}
    )
    assert found.equity == 460


def test_dust_needs_no_price() -> None:
    assert worth(BINANCE, dated(USDT=Balance(D(10))), [coins("0.0001", "1")], {}).equity == 10


@pytest.mark.parametrize(("side", "equity"), [(Side.BUY, "1018"), (Side.SELL, "978")])
def test_futures_are_worth_their_wallet_and_what_the_price_brought(side: Side, equity: str) -> None:
    """2 at 100 for a fee of 2 that has left the wallet (998 now): at 110 a long gained 20, a short lost 20."""
    empty = Position("BINANCE", "BTCUSDT", RULES, market=Market.FUTURES)
    held, _ = after_trade(empty, Trade(side, D(2), D(200), (Fee("USDT", D(2)),)))
    balances = dated(USDT=Balance(D(1010), D(0), wallet=D(998)))
    assert worth(FUTURES, balances, [held], {"BTCUSDT": D(110)}).equity == D(equity)


def test_what_is_left_of_a_futures_position_has_its_share_of_the_fee() -> None:
    """Half of it is closed: 1 of the fee of 2 is in what is left, whose gain at 110 is 10 without it."""
    empty = Position("BINANCE", "BTCUSDT", RULES, market=Market.FUTURES)
    held, _ = after_trade(empty, Trade(Side.BUY, D(2), D(200), (Fee("USDT", D(2)),)))
    half, _ = after_trade(held, Trade(Side.SELL, D(1), D(110), (Fee("USDT", D(1)),), may_open=False))
    assert (half.unrealized_pnl(D(110)), half.gain_in_price(D(110))) == (9, 10)
    gone, _ = after_trade(half, Trade(Side.SELL, D(1), D(110), may_open=False))
    assert gone.fees_in_cost == 0


# --- when it is sure --------------------------------------------------------------------------------------------------


def books_with(*events: Event) -> Books:
    books = Books()
    for event in events:
        books = fold(books, event)
    return books


def bought(when: datetime, **changes: Any) -> tuple[Event, Event]:
    order = an_order(**changes)
    filled = advanced(books_with(decided(order)), order, done("1", "100"), when)
    return decided(order), OrderChanged(filled, when)


def test_a_balance_from_before_the_last_fill_is_not_believed() -> None:
    books = books_with(*bought(seconds(5)))
    assert not is_settled(books, BINANCE, seconds(4))
    assert not is_settled(books, BINANCE, seconds(5))
    assert is_settled(books, BINANCE, seconds(5.1))
    assert is_settled(books, FUTURES, seconds(4)), "another wallet"


@pytest.mark.parametrize("status", [S.SENT, S.UNKNOWN])
def test_while_an_order_is_under_way_nothing_is_sure(status: Any) -> None:
    order = an_order()
    books = books_with(decided(order), OrderChanged(replace(order, status=status), seconds(1)))
    assert not is_settled(books, BINANCE, seconds(99))
    assert is_settled(books, FUTURES, seconds(99))


def test_an_order_that_waits_has_not_left() -> None:
    assert is_settled(books_with(decided(an_exit(status=S.INTENT, sent_at=None))), BINANCE, seconds(1))


class Market_:
    """What is known of the market, as fresh as a test wants it."""

    def __init__(self) -> None:
        self.asked_at: datetime | None = seconds(60)
        self.price: Any = D(300)
        self.usdt = D(1000)

    def fresh_balances(self, account: Account) -> Dated[Any] | None:
        balances = {"USDT": Balance(self.usdt), "BTC": Balance(D(5))}
        return Dated(balances, self.asked_at) if self.asked_at else None

    def fresh_price(self, instrument: Instrument) -> Any:
        return self.price


class Office:
    """An accountant beside an engine on a real journal."""

    def __init__(self, path: Path, **patience: Any) -> None:
        self.journal = Journal(path / "journal.db")
        self.engine = RiskEngine(self.journal, LIMITS)
        self.market = Market_()
        self.patience = Patience(**OFTEN | patience)
        self.now = seconds(100)

    async def work(self, *steps: tuple[float, Callable[[], object]]) -> None:
        """Does what the steps say, each after so many seconds, while the accountant is at work."""
        ready = asyncio.Event()
        ready.set()
        accountant = Accountant(self.engine, self.market, (BINANCE,), lambda: self.now, self.patience)  # type: ignore[arg-type]
        keeping = asyncio.create_task(accountant.keep(ready, asyncio.to_thread))
        for wait, step in steps:
            await asyncio.sleep(wait)
            step()
        keeping.cancel()

    def run(self, *steps: tuple[float, Callable[[], object]]) -> list[str]:
        asyncio.run(self.work(*steps))
        looks = self.journal.history.valuations(0, self.journal.history.last_number())
        return [str(one.equity) for look in looks for one in look.worths]

    def buy(self, quantity: str = "1", **changes: Any) -> Order:
        return self.tell(an_order(**changes), quantity)

    def tell(self, order: Order, quantity: str) -> Order:
        self.engine._ledger.run(lambda books: ([decided(order)], None))
        return self.engine.settle(order, done(quantity, "100"), seconds(10))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def nothing() -> None:
    pass


def test_it_is_looked_at_once_at_the_start(office: Office) -> None:
    assert office.run((1.2, nothing)) == ["1000"]


def test_it_is_looked_at_after_a_fill(office: Office) -> None:
    """1000 left of the dollars, in the eyes of this market, and 1 coin at 300."""
    assert office.run((0.2, office.buy), (1.0, nothing)) == ["1000", "1300"]


def test_however_much_is_traded_it_is_looked_at_once_a_while(tmp_path: Path) -> None:
    office = Office(tmp_path, worth_gap=60)
    buys = [(0.2, lambda n=n: office.buy(client_order_id=f"gh{n}", signal_id=f"s{n}")) for n in range(6)]
    assert office.run(*buys, (0.5, nothing)) == ["1000"]


def test_it_is_looked_at_every_hour(tmp_path: Path) -> None:
    office = Office(tmp_path, worth_every=0.9)
    assert len(office.run((1.3, nothing))) == 2


@pytest.mark.parametrize("lacks", ["asked_at", "price"])
def test_what_is_not_known_freshly_is_not_written_but_looked_at_again(
    office: Office, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    office.buy()
    whole = getattr(office.market, lacks)
    setattr(office.market, lacks, None)
    assert office.run((0.7, nothing)) == []
    setattr(office.market, lacks, whole)
    assert office.run((0.7, nothing)) == ["1300"]
    assert caplog.records == [], "that is nothing unforeseen"


def test_a_balance_that_does_not_know_the_fill_is_not_written(office: Office) -> None:
    office.buy()
    office.market.asked_at = seconds(9)
    assert office.run((0.7, nothing)) == []


def test_while_something_rests_only_what_holds_for_a_while_is_written(office: Office) -> None:
    """The balance shows what a resting buy has cost (900) before the books know that it was filled."""
    resting = an_order(client_order_id="gh9", signal_id="s9")
    office.engine._ledger.run(lambda books: ([decided(resting)], None))
    resting = office.engine.settle(resting, done("0", "100", status=S.NEW), seconds(9))
    office.market.usdt = D(900)
    told = office.run((0.15, lambda: office.engine.settle(resting, done("1", "100"), seconds(11))), (1.2, nothing))
    assert told == ["1200"]


def test_something_unforeseen_does_not_end_it(office: Office) -> None:
    office.buy()
    office.market.price = "no number"
    assert office.run((0.5, lambda: setattr(office.market, "price", D(300))), (1.2, nothing)) == ["1300"]


def test_a_disk_that_is_full_is_tried_again(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.journal._writer.execute("CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'full'); END")
    assert office.run((0.2, lambda: office.journal._writer.execute("DROP TRIGGER no")), (1.2, nothing)) == ["1000"]
    assert office.engine.journal_problem == "", "that is for decisions to say"
    (told,) = caplog.records
    assert (told.levelname, told.exc_info) == ("WARNING", None)


# --- the record -------------------------------------------------------------------------------------------------------


def a_look(when: datetime, *worths: tuple[str, str, Market]) -> Valued:
    return Valued(
        tuple(Worth(broker, market, "USDT", D(equity), ZERO, ZERO) for broker, equity, market in worths), when
    )


def test_a_look_changes_no_books_has_no_row_and_is_read_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    look = a_look(NOW, ("BINANCE", "1234.5", Market.FUTURES), ("PAPER", "0.1", Market.SPOT))
    engine = RiskEngine(journal, LIMITS)
    before = engine.books
    engine.value(look.worths, NOW)
    assert engine.books is before
    assert fold(before, look) is before
    assert (journal.last_number("signals"), journal.last_number("trades")) == (0, 0)
    assert journal.history.valuations(0, 1) == [look]
    assert list(journal.replay()) == []
    journal.close()
    again = Journal(tmp_path / "journal.db")
    assert RiskEngine(again, LIMITS).books == before
    assert again.last_event == 1
    again.close()


def test_the_accounts_are_added_and_who_was_not_seen_is_as_he_was() -> None:
    spot, perps = Market.SPOT, Market.FUTURES
    looks = [
        a_look(seconds(1), ("BINANCE", "100", spot), ("BINANCE", "50", perps), ("PAPER", "1000", spot)),
        a_look(seconds(2), ("BINANCE", "90", spot)),
        a_look(seconds(3), ("PAPER", "2000", spot)),
        a_look(seconds(4), ("BINANCE", "70", perps)),
    ]
    assert equity_of(looks, ("BINANCE",)) == [
        EquityPoint(seconds(1), D(150)), EquityPoint(seconds(2), D(140)), EquityPoint(seconds(4), D(160)),
    ]  # fmt: skip


def test_a_long_curve_is_thinned_to_its_last_point() -> None:
    points = [EquityPoint(seconds(n), D(n)) for n in range(10)]
    assert [int(point.equity) for point in thinned(points, 4)] == [0, 3, 6, 9]
    assert [int(point.equity) for point in thinned(points, 3)] == [0, 4, 8, 9]
    assert list(thinned(points, 10)) == points
    assert list(thinned([], 3)) == []


# --- the daemon -------------------------------------------------------------------------------------------------------


def curve(daemon: Daemon) -> list[float]:
    return [point["equity"] for point in daemon.owner_get("/performance")["equity"]]


def wait_for(daemon: Daemon, points: int) -> list[float]:
    eventually(lambda: len(curve(daemon)) >= points, 10, lambda: f"only {curve(daemon)}: {daemon.log()[-2000:]}")
    return curve(daemon)


def test_the_curve_on_paper_begins_at_the_start_and_follows_the_trades(daemon_with: Callable[..., Daemon]) -> None:
    """100; 10 buy 0.1 coins at 100 less 0.1 % fee, 0.0999: 90 + 9.99; sold at 110: 10.989 less 0.010989: 100.978011."""
    daemon = daemon_with(paper_balance_usdt=100, cooldown_seconds=0, test_patience=OFTEN).start()
    assert wait_for(daemon, 1) == [100]
    daemon.post(symbol="BTCUSDT", side="buy", price=100)
    assert wait_for(daemon, 2)[1] == pytest.approx(99.99)
    daemon.post(symbol="BTCUSDT", side="sell", price=110)
    assert wait_for(daemon, 3)[2] == pytest.approx(100.978011)
    assert daemon.owner_get("/performance")["max_equity_drawdown_percent"] == pytest.approx(0.01)
    time.sleep(1)
    daemon.restart()
    assert len(wait_for(daemon, 4)) == 4, "nothing was written that did not happen"


def test_the_curve_at_the_exchange_follows_balances_and_prices(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance
) -> None:
    settings = binance(exchange, cooldown_seconds=0)
    patience = {**settings["test_patience"], **OFTEN}  # type: ignore[dict-item]
    daemon = daemon_with(**settings | {"test_patience": patience}).start()
    assert wait_for(daemon, 1) == [1000]
    assert daemon.post(symbol="BTCUSDT", side="buy", amount_usdt=10, price=43000)["success"]
    after = wait_for(daemon, 2)
    assert after[1] == pytest.approx(1000, abs=0.05), "the coins are worth what was paid for them, less the fee"
    exchange.set_price("BTCUSDT", 86000)
    daemon.post(symbol="BTCUSDT", side="sell")
    assert 1009 < wait_for(daemon, 3)[2] == float(exchange.balances["USDT"].free)


def test_the_curve_of_futures_counts_the_entrys_fee_once(
    daemon_with: Callable[..., Daemon], exchange: FakeBinance
) -> None:
    settings = futures(exchange, cooldown_seconds=0, max_risk_per_trade=500)
    patience = {**settings["test_patience"], **OFTEN}  # type: ignore[dict-item]
    daemon = daemon_with(**settings | {"test_patience": patience}).start()
    start = wait_for(daemon, 1)[0]
    reply = daemon.post(symbol="BTCUSDT", action="buy", quantity="0.005", market_position="long")
    assert reply["success"], reply.body
    (fee,) = daemon.owner_get("/executions")["executions"][0]["fees"]
    assert fee["amount"] > 0.1
    assert wait_for(daemon, 2)[1] == pytest.approx(start - fee["amount"], abs=0.02)


def test_no_row_and_no_decision_knows_of_it(daemon_with: Callable[..., Daemon]) -> None:
    daemon = daemon_with(paper_balance_usdt=100, test_patience=OFTEN | {"worth_every": 0.3}).start()
    wait_for(daemon, 3)
    assert (daemon.signals(), daemon.trades()) == ([], [])
    with sqlite3.connect(daemon.folder / "logs" / "journal.db") as connection:
        kinds = {kind for (kind,) in connection.execute("SELECT kind FROM events")}
    assert kinds == {"valued"}
