"""The books: what is remembered, and that a restart remembers the same. Positions, counts, the life of an order."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from builders import BINANCE, LIMITS, NOW, RULES, D, S, an_exit, an_order, at, decide, decided, done, view_at
from harness import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from books import Books, advanced, fold
from codec import from_text, to_text
from events import Decided, Event, OrderChanged, Preferred, Switched
from journal import Journal
from models import (
    ENDINGS,
    LEGAL_CHANGES,
    ZERO,
    Account,
    Action,
    Decision,
    DecisionRecord,
    Execution,
    Fee,
    Market,
    Order,
    OrderStatus,
    OrderType,
    ProtectionWish,
    Side,
    Signal,
)
from portfolio import Position, Trade, after_trade
from risk import RiskEngine


def told(books: Books, order: Order, *executions: Execution, at: datetime = NOW) -> Books:
    """The books after the order's decision and these reports of its broker."""
    books = fold(books, decided(order, at))
    for execution in executions:
        order = advanced(books, order, execution, at)
        books = fold(books, OrderChanged(order, at))
    return books


def held(books: Books) -> Position:
    position = books.position(at("BTCUSDT"))
    assert position is not None
    return position


# --- the life of an order -----------------------------------------------------------------------------------------

LEGAL = """
INTENT           SENT NOT_PLACED
SENT             UNKNOWN NEW PARTIALLY_FILLED FILLED CANCELED EXPIRED REJECTED NOT_PLACED
UNKNOWN          NEW PARTIALLY_FILLED FILLED CANCELED EXPIRED REJECTED NOT_PLACED
NEW              PARTIALLY_FILLED FILLED CANCELED EXPIRED REJECTED
PARTIALLY_FILLED PARTIALLY_FILLED FILLED CANCELED EXPIRED
FILLED
CANCELED
EXPIRED
REJECTED
NOT_PLACED       NEW PARTIALLY_FILLED FILLED CANCELED EXPIRED REJECTED
"""
LEGAL_PAIRS = {(line.split()[0], to) for line in LEGAL.strip().splitlines() for to in line.split()[1:]}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_a_status_changes_only_as_the_table_says(before: OrderStatus, after: OrderStatus) -> None:
    order, execution = an_order(before), Execution(after, "77")
    # That a proven absence is proven again changes nothing and harms nothing; the engine never writes it twice.
    if (before, after) in LEGAL_PAIRS or before is after is S.NOT_PLACED:
        changed = advanced(Books(), order, execution, NOW)
        assert (changed.status, changed.exchange_order_id) == (after, "77")
        assert (changed.settled_at is None) is (after in (S.INTENT, S.SENT, S.UNKNOWN))
    else:
        with pytest.raises(ValueError, match=f"gh1: {before} cannot become {after}"):
            advanced(Books(), order, execution, NOW)


def test_the_table_names_every_status() -> None:
    assert LEGAL_CHANGES.keys() == set(S)
    assert {status for status in S if not LEGAL_CHANGES[status]} == ENDINGS - {S.NOT_PLACED}


def test_what_was_executed_cannot_become_less() -> None:
    order = an_order(S.PARTIALLY_FILLED, executed_quantity=D(2), executed_quote=D(200))
    with pytest.raises(ValueError, match="cannot shrink"):
        advanced(Books(), order, done("1", "100", status=S.CANCELED), NOW)


def test_a_report_without_fees_keeps_the_fees_known_before() -> None:
    order = an_order(S.PARTIALLY_FILLED, executed_quantity=D(1), executed_quote=D(100), fees=(Fee("BNB", D(1)),))
    assert advanced(Books(), order, done("1", "100", status=S.CANCELED), NOW).fees == (Fee("BNB", D(1)),)


# --- counts -------------------------------------------------------------------------------------------------------


def test_an_entry_counts_from_its_decision_on_and_once() -> None:
    books = fold(Books(), decided(an_order()))
    assert (books.entries_today, books.open_trades) == (1, 1)
    assert books.last_entry_at(at("BTCUSDT"), Side.BUY) == NOW
    for execution in (Execution(S.UNKNOWN), done("0.4", "100", status=S.PARTIALLY_FILLED), done("1", "100")):
        books = fold(books, OrderChanged(advanced(books, books.orders["gh1"], execution, NOW), NOW))
        assert (books.entries_today, books.open_trades) == (1, 1)
    assert books.orders == {}


@pytest.mark.parametrize("ending", [S.NOT_PLACED, S.REJECTED])
def test_what_was_never_placed_gives_everything_back(ending: OrderStatus) -> None:
    books = fold(Books(), decided(an_order()))
    assert books.quote_set_aside(BINANCE, "USDT", NOW) == 100
    books = fold(books, OrderChanged(advanced(books, books.orders["gh1"], Execution(ending), NOW), NOW))
    assert (books.entries_today, books.open_trades) == (0, 0)
    assert books.last_entry_at(at("BTCUSDT"), Side.BUY) is None
    assert books.quote_set_aside(BINANCE, "USDT", NOW) == 0
    assert books.positions == {}


@pytest.mark.parametrize("ending", [S.CANCELED, S.EXPIRED])
def test_what_was_placed_and_ended_without_a_fill_still_counts_today(ending: OrderStatus) -> None:
    books = told(Books(), an_order(), Execution(S.NEW), Execution(ending))
    assert (books.entries_today, books.open_trades) == (1, 0)
    assert books.last_entry_at(at("BTCUSDT"), Side.BUY) == NOW


def test_an_order_that_turns_up_after_all_counts_again_and_is_held() -> None:
    books = told(Books(), an_order(), Execution(S.UNKNOWN), Execution(S.NOT_PLACED), done("1", "100"))
    assert (books.entries_today, books.open_trades) == (1, 1)
    assert held(books).quantity == 1


def test_the_return_of_one_cooldown_leaves_the_others() -> None:
    other = an_order(client_order_id="gh9", symbol="ETHUSDT", created_at=NOW)
    books = told(fold(Books(), decided(other)), an_order(), Execution(S.NOT_PLACED))
    assert books.last_entry_at(at("ETHUSDT"), Side.BUY) == NOW
    later = NOW + timedelta(seconds=90)
    books = fold(fold(books, decided(an_order())), decided(an_order(client_order_id="gh3", created_at=later), later))
    books = fold(books, OrderChanged(replace(books.orders["gh1"], status=S.NOT_PLACED), later))
    assert books.last_entry_at(at("BTCUSDT"), Side.BUY) == later


def test_an_exit_counts_for_nothing() -> None:
    books = fold(Books(), decided(an_exit()))
    assert (books.entries_today, books.open_trades, books.last_accepted) == (0, 0, {})
    assert books.base_being_closed(at("BTCUSDT")) == 1


def test_a_refusal_changes_nothing() -> None:
    books = Books(day=NOW.date(), entries_today=4)
    assert fold(books, decided(None, decision=Decision.REJECTED)) == books


def test_money_of_an_order_that_ended_stays_aside_until_a_newer_balance_shows_it() -> None:
    books = told(Books(), an_order(), done("0.9", "100"))
    assert books.quote_set_aside(BINANCE, "USDT", NOW) == 90
    assert books.quote_set_aside(BINANCE, "USDT", NOW - timedelta(seconds=5)) == 90
    assert books.quote_set_aside(BINANCE, "USDT", NOW + timedelta(microseconds=1)) == 0
    assert books.quote_set_aside(BINANCE, "USDC", NOW) == 0
    assert books.quote_set_aside(Account("PAPER", Market.SPOT), "USDT", NOW) == 0


# --- days ---------------------------------------------------------------------------------------------------------

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


def test_at_midnight_utc_the_day_begins_anew() -> None:
    books = Books(day=date(2026, 3, 1), entries_today=4, realized_today=D(-9))
    assert books.as_of(MIDNIGHT - timedelta(microseconds=1)) == books
    assert books.as_of(MIDNIGHT) == Books(day=date(2026, 3, 2))
    in_delhi = (MIDNIGHT - timedelta(hours=1)).astimezone(_offset(5.5))
    assert in_delhi.date() == date(2026, 3, 2)
    assert books.as_of(in_delhi) == books


def _offset(hours: float) -> Any:
    return datetime.fromisoformat(f"2026-01-01T00:00:00+{int(hours):02d}:{int(hours % 1 * 60):02d}").tzinfo


@given(st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), max_size=20))
def test_a_day_that_is_over_never_comes_back(moments: list[datetime]) -> None:
    books, days = Books(), []
    for moment in moments:
        books = replace(books.as_of(moment), entries_today=7)
        days.append(books.day)
    assert days == sorted(days)
    assert all(day >= moment.date() for day, moment in zip(days, moments, strict=True))


def test_an_order_belongs_to_the_day_of_its_decision() -> None:
    evening, night = MIDNIGHT - timedelta(seconds=1), MIDNIGHT + timedelta(seconds=1)
    books = fold(Books(), decided(an_order(created_at=evening), evening))
    filled = OrderChanged(advanced(books, books.orders["gh1"], done("1", "100"), night), night)
    assert fold(books, filled).entries_today == 0
    absent = OrderChanged(replace(books.orders["gh1"], status=S.NOT_PLACED), night)
    assert fold(books, absent).entries_today == 0


def test_after_the_clock_stepped_back_over_midnight_entries_still_count() -> None:
    """Otherwise there would be no daily limit until midnight comes again."""
    books = Books().as_of(MIDNIGHT + timedelta(minutes=5))
    earlier = MIDNIGHT - timedelta(minutes=30)
    for number in range(3):
        order = an_order(client_order_id=f"gh{number}", created_at=earlier)
        books = told(books, order, done("1", "100"), at=earlier)
    assert (books.day, books.entries_today) == (date(2026, 3, 2), 3)


# --- positions, worked out by hand --------------------------------------------------------------------------------


def buy(quantity: str, price: str, *fees: tuple[str, str], opens_lot: bool = True) -> Trade:
    paid = tuple(Fee(asset, D(amount)) for asset, amount in fees)
    return Trade(Side.BUY, D(quantity), D(quantity) * D(price), paid, opens_lot)


def sell(quantity: str, price: str, *fees: tuple[str, str]) -> Trade:
    return replace(buy(quantity, price, *fees), side=Side.SELL, may_open=False)


def seen(*values: object) -> tuple[object, ...]:
    return values


def after(*trades: Trade) -> tuple[Position, Decimal | None]:
    position, realized = Position("BINANCE", "BTCUSDT", RULES), None
    for trade in trades:
        position, realized = after_trade(position, trade)
    return position, realized


def test_average_cost_and_profit_with_fees_in_quote() -> None:
    position, realized = after(
        buy("1", "100", ("USDT", "0.1")), buy("1", "200", ("USDT", "0.2")), sell("1", "180", ("USDT", "0.18"))
    )
    assert realized == D("29.67")  # 180 - 0.18 - (100.1 + 200.2) / 2
    assert seen(position.quantity, position.cost, position.average_cost) == (1, D("150.15"), D("150.15"))
    assert seen(position.realized_pnl, position.last_price) == (D("29.67"), 180)
    assert position.unrealized_pnl(D(140)) == D("-10.15")


def test_a_fee_in_base_shrinks_what_is_held_not_what_was_paid() -> None:
    position, _ = after(buy("1", "100", ("BTC", "0.001")))
    assert seen(position.quantity, position.cost, position.lots) == (D("0.999"), 100, (D("0.999"),))
    closed, realized = after_trade(position, sell("0.999", "110", ("USDT", "0.1")))
    assert realized == D("9.79")  # 109.89 - 0.1 - 100
    assert seen(closed.quantity, closed.cost, closed.lots) == (0, 0, ())


def test_a_fee_without_a_value_touches_neither_quantity_nor_profit() -> None:
    position, realized = after(buy("1", "100", ("BNB", "0.0002")), sell("1", "90", ("BNB", "0.0002")))
    assert seen(realized, position.quantity, position.realized_pnl) == (-10, 0, -10)


@pytest.mark.parametrize(("side", "realized"), [(Side.BUY, "-10.17"), (Side.SELL, "9.83")])
def test_a_fee_in_another_coin_costs_what_it_was_worth(side: Side, realized: str) -> None:
    """1 at 100 for a fee worth 0.12, closed at 90 for one worth 0.05: a long loses 10.17, a short gains 9.83."""
    opening = Trade(side, D(1), D(100), (Fee("BNB", D("0.0002"), D("0.12")),))
    other = Side.SELL if side is Side.BUY else Side.BUY
    held, _ = after_trade(Position("BINANCE", "BTCUSDT", RULES, market=Market.FUTURES), opening)
    assert held.gain_in_price(D(100)) == 0, "the fee has left the account already"
    assert held.unrealized_pnl(D(100)) == D("-0.12")
    closed, found = after_trade(held, Trade(other, D(1), D(90), (Fee("BNB", D("0.0001"), D("0.05")),), may_open=False))
    assert seen(found, closed.quantity) == (D(realized), 0)


def test_of_a_trade_that_turns_the_position_each_half_carries_its_fee() -> None:
    """3 for a fee worth 0.3 against a long of 1: 0.1 of it closes, 0.2 of it is in the cost of the short."""
    held, _ = after_trade(Position("BINANCE", "BTCUSDT", RULES, market=Market.FUTURES), Trade(Side.BUY, D(1), D(100)))
    turned, found = after_trade(held, Trade(Side.SELL, D(3), D(300), (Fee("BNB", D("0.03"), D("0.3")),)))
    assert (round(found or D(0), 9), round(turned.cost, 9)) == (D("-0.1"), D("199.8"))


def test_first_bought_is_first_sold() -> None:
    position, _ = after(buy("1", "100"), buy("2", "100"), buy("3", "100"), sell("1.5", "100"))
    assert seen(position.lots, position.open_trades) == ((D("1.5"), 3), 2)
    position, _ = after_trade(position, sell("4.5", "100"))
    assert (position.lots, position.open_trades, position.is_open) == ((), 0, False)


def test_what_is_sold_beyond_the_position_was_the_owners_own() -> None:
    position, realized = after(buy("1", "100"), sell("4", "120", ("USDT", "0.48")))
    assert realized == D("19.88")  # a quarter of 479.52, less 100
    assert seen(position.quantity, position.cost, position.lots) == (0, 0, ())
    untouched, nothing = after(sell("4", "120"))
    assert seen(untouched.quantity, nothing) == (0, 0)


def test_dust_is_not_an_open_trade_and_joins_the_next_entry() -> None:
    position, _ = after(buy("1", "100"), sell("0.9995", "100"))
    assert (position.quantity, position.is_open, position.open_trades) == (D("0.0005"), False, 0)
    position, _ = after_trade(position, buy("1", "100"))
    assert seen(position.quantity, position.lots, position.open_trades) == (D("1.0005"), (1,), 1)


def test_a_falling_price_closes_no_position_in_the_books() -> None:
    position, _ = after(buy("1", "100"))
    assert replace(position, last_price=D("0.01")).is_open
    assert after(buy("0.05", "100"))[0].is_open
    assert not after(buy("0.024", "100"))[0].is_open


def test_parts_of_one_order_are_one_lot_and_add_up() -> None:
    books = told(
        Books(),
        an_order(),
        done("0.3", "100", ("BTC", "0.0003"), status=S.PARTIALLY_FILLED),
        done("0.7", "100", ("BTC", "0.0003"), ("BNB", "0.001"), status=S.PARTIALLY_FILLED),
        done("1", "100", ("BTC", "0.0006"), ("BNB", "0.001")),
    )
    position = held(books)
    assert seen(position.quantity, position.cost, position.lots) == (D("0.9994"), 100, (D("0.9994"),))
    assert books.open_trades == 1
    assert books.flows == {
        (BINANCE, "BTC"): D("0.9994"), (BINANCE, "USDT"): D(-100), (BINANCE, "BNB"): D("-0.001")
    }  # fmt: skip


def test_parts_of_one_exit_realise_what_the_whole_would() -> None:
    books = told(Books(), an_order(), done("1", "100"))
    books = told(
        books,
        an_exit(),
        done("0.25", "120", ("USDT", "0.03"), status=S.PARTIALLY_FILLED),
        done("0.5", "120", ("USDT", "0.06"), status=S.PARTIALLY_FILLED),
        done("1", "120", ("USDT", "0.12")),
    )
    assert books.recent[-1].realized_pnl == books.realized_today == held(books).realized_pnl == D("19.88")
    assert seen(held(books).quantity, books.closable(at("BTCUSDT"), Side.SELL)) == (0, 0)


def test_what_was_realised_in_rupees_is_not_added_to_the_days_dollars() -> None:
    rupees = replace(RULES, quote_asset="INR")
    books = told(Books(), an_order(rules=rupees), done("1", "100"))
    books = told(books, an_exit(rules=rupees), done("1", "60"))
    assert books.recent[-1].realized_pnl == held(books).realized_pnl == -40
    assert books.realized_today == 0


def test_what_is_being_sold_is_no_longer_sellable_and_only_the_rest_once_a_part_is_gone() -> None:
    books = told(Books(), an_order(), done("1", "100"))
    exit_ = an_exit(quantity=D("0.6"), reserved_base=D("0.6"))
    assert told(books, exit_).closable(at("BTCUSDT"), Side.SELL) == D("0.4")
    part = done("0.2", "100", status=S.PARTIALLY_FILLED)
    assert told(books, exit_, part).closable(at("BTCUSDT"), Side.SELL) == D("0.4")
    assert told(books, exit_, part, done("0.2", "100", status=S.CANCELED)).closable(at("BTCUSDT"), Side.SELL) == D(
        "0.8"
    )


# --- shorts: what was sold first ------------------------------------------------------------------------------------


def short(quantity: str, price: str, *fees: tuple[str, str]) -> Trade:
    return replace(buy(quantity, price, *fees), side=Side.SELL)


def cover(quantity: str, price: str, *fees: tuple[str, str]) -> Trade:
    return replace(buy(quantity, price, *fees), may_open=False)


def after_futures(*trades: Trade) -> tuple[Position, Decimal | None]:
    position, realized = Position("BINANCE", "BTCUSDT", RULES, market=Market.FUTURES), None
    for trade in trades:
        position, realized = after_trade(position, trade)
    return position, realized


def test_a_short_is_worth_what_it_brought_less_fees() -> None:
    position, realized = after_futures(short("1", "100", ("USDT", "0.1")), short("1", "200", ("USDT", "0.2")))
    assert realized is None
    assert seen(position.signed, position.cost, position.average_cost) == (-2, D("299.7"), D("149.85"))
    assert seen(position.side, position.open_trades, position.lots) == ("SHORT", 2, (1, 1))
    assert position.unrealized_pnl(D(140)) == D("19.7")


def test_a_short_that_is_bought_back_in_part_realises_that_part_and_keeps_its_average() -> None:
    position, realized = after_futures(short("2", "150", ("USDT", "0.3")), cover("0.5", "130", ("USDT", "0.065")))
    assert realized == D("9.86")  # (150 - 0.15 - 130 - 0.13) / 2
    assert seen(position.signed, position.average_cost, position.lots) == (D("-1.5"), D("149.85"), (D("1.5"),))
    position, realized = after_trade(position, cover("1.5", "160"))
    assert realized == D("-15.225")
    assert seen(position.quantity, position.cost, position.is_short, position.realized_pnl) == (
        0, 0, False, D("-5.365"),
    )  # fmt: skip


def test_what_is_bought_back_beyond_a_short_opens_nothing() -> None:
    position, realized = after_futures(short("1", "100"), cover("4", "80"))
    assert seen(position.quantity, position.is_short, realized) == (0, False, 20)
    nothing, realized = after_futures(cover("4", "80"))
    assert seen(nothing.quantity, realized) == (0, 0)


@pytest.mark.parametrize("first", [buy, short])
def test_an_entry_that_turns_up_late_against_what_is_held_closes_it_and_opens_the_rest(
    first: Callable[..., Trade],
) -> None:
    second = short if first is buy else buy
    position, realized = after_futures(first("1", "100"), second("3", "110", ("USDT", "0.33")))
    gained = 10 if first is buy else -10
    assert realized == D(gained) - D("0.11")
    fee = D("0.22") if first is short else -D("0.22")
    assert seen(position.quantity, position.cost, position.is_short) == (2, 220 + fee, first is buy)
    assert seen(position.lots, position.open_trades) == ((2,), 1)


def test_protection_of_one_side_is_not_kept_for_the_other() -> None:
    futures: dict[str, Any] = {"market": Market.FUTURES, "amount": None, "quantity": D(1)}
    wish = ProtectionWish(stop_loss=D(90))
    books = told(Books(), an_order(**futures, protection=wish), done("1", "100"))
    late = an_order(**(futures | {"quantity": D(3)}), client_order_id="gh7", signal_id="s7", side=Side.SELL)
    position = told(books, late, done("3", "100")).position(at("BTCUSDT", Market.FUTURES))
    assert position is not None
    assert seen(position.signed, position.protection) == (-2, None)


moves_on_futures = st.lists(
    st.tuples(st.booleans(), st.decimals("0.001", "1000", places=3), st.decimals("1", "1000", places=2)), max_size=12
)


@given(moves_on_futures)
def test_what_a_short_earns_a_long_would_lose(moves: list[tuple[bool, Decimal, Decimal]]) -> None:
    """The same quantities at the same prices; with a fee on each, both pay it."""
    for rate in (ZERO, D("0.001")):
        long = mirrored = Position("BINANCE", "BTCUSDT", RULES, market=Market.FUTURES)
        paid = ZERO
        for opens, quantity, price in moves:
            fees = (Fee("USDT", quantity * price * rate),) if rate else ()
            trade = Trade(Side.BUY if opens else Side.SELL, quantity, quantity * price, fees, may_open=opens)
            other = replace(trade, side=Side.SELL if opens else Side.BUY)
            part = min(quantity, long.quantity) / quantity if not opens else Decimal(1)
            (long, _), (mirrored, _) = after_trade(long, trade), after_trade(mirrored, other)
            paid += quantity * price * rate * part
        assert (long.quantity, long.lots) == (mirrored.quantity, mirrored.lots)
        open_value = long.unrealized_pnl(D(100)) + mirrored.unrealized_pnl(D(100))
        together = long.realized_pnl + mirrored.realized_pnl + open_value
        assert abs(together + 2 * paid) < D("1e-12") * (1 + paid)


amounts = st.decimals("0.001", "1000", places=3)
trades = st.lists(
    st.tuples(st.sampled_from(Side), amounts, amounts, st.sampled_from(["BTC", "USDT", "BNB"])), max_size=12
)


@given(trades)
def test_nothing_is_ever_held_below_zero_and_profit_adds_up(moves: list[tuple[Side, Decimal, Decimal, str]]) -> None:
    position, realized = Position("BINANCE", "BTCUSDT", RULES), ZERO
    for side, quantity, price, asset in moves:
        fee = Fee(asset, (quantity if asset == "BTC" else price) / 1000)
        position, gained = after_trade(
            position, Trade(side, quantity, quantity * price, (fee,), may_open=side is Side.BUY)
        )
        realized += gained or ZERO
        assert position.quantity >= 0
        assert position.cost >= 0
        assert all(lot > 0 for lot in position.lots)
        assert sum(position.lots) <= position.quantity
        assert position.open_trades <= len(position.lots) or not position.lots
        assert (position.average_cost is None) is (position.quantity == 0)
    assert position.realized_pnl == realized


# --- the engine and its restart -----------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> RiskEngine:
    return RiskEngine(Journal(tmp_path / "journal.db"), LIMITS)


def test_an_ending_that_two_have_seen_fills_the_position_once(engine: RiskEngine) -> None:
    """Who follows a resting order and who cancels it ask at the same time, with the same old value in hand."""
    order = decide(engine, Signal(Action.BUY, "BTCUSDT", quantity=D(1), type=OrderType.LIMIT, price=D(100))).order
    assert order is not None
    resting = engine.settle(order, Execution(S.NEW, "77"), NOW)
    first = engine.settle(resting, done("1", "100"), NOW)
    again = engine.settle(resting, done("1", "100"), NOW)
    assert first == again
    assert held(engine.books).quantity == 1
    assert len(engine._journal.rows_after("trades", 0)) == 2
    with pytest.raises(ValueError, match="FILLED cannot become CANCELED"):
        engine.settle(resting, done("1", "100", status=S.CANCELED), NOW)


def test_the_daily_limit_holds_when_the_clock_steps_back_over_midnight(engine: RiskEngine) -> None:
    engine = RiskEngine(engine._journal, replace(LIMITS, max_open_trades=99))
    decide(engine, Signal(Action.BUY, "ETHUSDT"), MIDNIGHT + timedelta(minutes=1))
    earlier = MIDNIGHT - timedelta(minutes=30)
    decisions = [decide(engine, Signal(Action.BUY, f"C{number}USDT"), earlier).check for number in range(6)]
    assert decisions == [""] * 4 + ["daily_limit"] * 2


symbols = st.sampled_from(["BTCUSDT", "ETHUSDT"])
steps = st.one_of(
    st.tuples(st.just("buy"), symbols, st.integers(1, 999)),
    st.tuples(st.just("limit"), symbols, st.integers(1, 9)),
    st.tuples(st.just("sell"), symbols, st.sampled_from([None, 1, 50])),
    st.tuples(st.just("report"), st.integers(0, 9), st.sampled_from([s for s in S if s not in (S.INTENT, S.SENT)])),
    st.tuples(st.just("release"), st.integers(0, 9), st.none()),
    st.tuples(st.just("pause"), st.booleans(), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 61, 86_400, -30]), st.none()),
)


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(steps, max_size=25))
def test_a_restart_knows_exactly_what_was_known_before(script: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        engine, now = RiskEngine(Journal(path), LIMITS), NOW
        for step in script:
            before = engine.books
            now = _play(engine, step, now)
            _nothing_impossible(before, engine.books)
        assert RiskEngine(Journal(path), LIMITS).books.as_of(now) == engine.books.as_of(now)


def _play(engine: RiskEngine, step: tuple[Any, ...], now: datetime) -> datetime:
    what, which, how = step
    orders = list(engine.books.orders.values())
    if what == "buy":
        _entered(engine, decide(engine, Signal(Action.BUY, which, amount=D(how)), now))
    elif what == "limit":
        limit = Signal(Action.BUY, which, quantity=D(how), type=OrderType.LIMIT, price=D(100))
        _entered(engine, decide(engine, limit, now))
    elif what == "sell":
        decide(engine, Signal(Action.SELL, which, quantity=None if how is None else D(how)), now)
    elif what == "report" and orders:
        _report(engine, orders[which % len(orders)], how, now)
    elif what == "release" and orders:
        order = orders[which % len(orders)]
        if not engine.blockers(order):
            engine.release(order, replace(view_at(now), rules=order.rules), now)
    elif what == "pause":
        engine.switch(which, now)
    elif what == "wait":
        return now + timedelta(seconds=which)
    return now


def _report(engine: RiskEngine, order: Order, status: OrderStatus, now: datetime) -> None:
    whole = order.quantity or (order.amount or ZERO) / 100
    executed = {S.FILLED: whole, S.PARTIALLY_FILLED: (order.executed_quantity + whole) / 2}.get(status)
    executed = order.executed_quantity if executed is None else executed
    fees = (Fee(order.rules.base_asset if order.side is Side.BUY else "USDT", executed / 1000),) if executed else ()
    execution = Execution(status, "77", executed, executed * 100, fees)
    if status in LEGAL_CHANGES[order.status]:
        engine.settle(order, execution, now)
    else:
        journal_length = len(engine._journal.rows_after("trades", 0))
        try:
            engine.settle(order, execution, now)
        except ValueError:
            pass
        assert len(engine._journal.rows_after("trades", 0)) == journal_length


def _entered(engine: RiskEngine, record: DecisionRecord) -> None:
    if record.decision is Decision.ACCEPTED:
        assert engine.books.open_trades <= LIMITS.max_open_trades
        assert engine.books.entries_today <= LIMITS.max_trades_per_day


def _nothing_impossible(before: Books, books: Books) -> None:
    assert books.day >= before.day
    assert books.entries_today >= 0
    assert books.open_trades >= 0
    assert all(position.quantity >= 0 and position.cost >= 0 for position in books.positions.values())
    assert all(not order.has_ended for order in books.orders.values())
    assert all(books.closable(at(symbol), Side.SELL) >= 0 for symbol in ("BTCUSDT", "ETHUSDT"))
    for asset in ("BTC", "ETH"):
        position = books.position(at(f"{asset}USDT"))
        flow = books.flows.get((BINANCE, asset), ZERO)
        assert flow <= (position.quantity if position else ZERO), "what the owner sold besides was not ours"


# --- on paper and back --------------------------------------------------------------------------------------------


def any_value(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint, of every kind that the events are made of."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(any_value, args))
    if origin is tuple:
        return st.lists(any_value(args[0]), max_size=2).map(tuple)
    if origin is frozenset:
        return st.frozensets(any_value(args[0]), max_size=2)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        made: Callable[..., Any] = typing.cast(Any, kind)
        return st.builds(made, **{field.name: any_value(hints[field.name]) for field in fields(kind)})
    if kind is Decimal:
        return st.decimals("-1E18", "1E18", allow_nan=False) | st.sampled_from([D("1E-18"), D("1E+3"), D("-0.00")])
    if kind is datetime:
        return st.datetimes(timezones=st.just(UTC))
    if kind is types.NoneType:
        return st.none()
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return {str: st.text(max_size=8), bool: st.booleans(), int: st.integers()}[kind]


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(any_value(Decided), any_value(OrderChanged), any_value(Switched), any_value(Preferred)))
def test_every_event_reads_back_as_it_was_written(event: Event) -> None:
    text = to_text(event)
    assert text.isascii()
    assert "\n" not in text
    assert from_text(type(event), text) == event


def test_money_never_passes_through_a_float() -> None:
    order = an_order(amount=D("0.1234567890123456789012345678901234567890"), price=D("1E-18"))
    text = to_text(OrderChanged(order, NOW))
    assert '"amount":"0.1234567890123456789012345678901234567890"' in text
    assert '"price":"0.000000000000000001"' in text
    assert from_text(OrderChanged, text).order == order


def test_records_of_another_version_are_still_read() -> None:
    text = to_text(Switched(True, NOW))
    assert from_text(Switched, text.replace("{", '{"a_field_of_tomorrow":1,', 1)) == Switched(True, NOW)
    order = an_order()
    assert '"note"' not in to_text(OrderChanged(order, NOW)), "what holds its default may be added later"


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"order":5}', '{"order":{},"at":"x"}', '{"at":"2026-01-01"}'])
def test_a_damaged_record_is_an_error_and_not_half_an_order(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        from_text(OrderChanged, text)
