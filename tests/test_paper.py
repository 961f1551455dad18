"""Paper money: what fills, what it costs, and that a restart finds the balance that its trades left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from builders import NOW, D, S
from hypothesis import given
from hypothesis import strategies as st

from books import Books, advanced, fold
from broker import Balance, Done, Refused
from events import Decided, OrderChanged
from models import Account, Decision, DecisionRecord, Execution, Fee, Market, Order, OrderType, Side
from paper_client import PaperClient
from paper_futures import PaperFutures

SYMBOL = "BTCUSDT"
FUTURES = Account("PAPER", Market.FUTURES)


def order(paper: PaperClient, side: Side, quantity: str | None, at: str | None = "100", **changes: Any) -> Order:
    made = Order(
        f"gh{len(paper._orders)}", "s", "PAPER", paper.account.market, SYMBOL, side, OrderType.MARKET, True,
        paper.symbol_rules(SYMBOL), NOW, NOW, quantity=D(quantity) if quantity else None,
        reference_price=D(at) if at else None,
    )  # fmt: skip
    return replace(made, **changes)


def done(paper: PaperClient, placed: Order) -> Execution:
    outcome = paper.place(placed)
    assert isinstance(outcome, Done), outcome
    return outcome.execution


def refusal(paper: PaperClient, placed: Order) -> str:
    outcome = paper.place(placed)
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


def exit_of(paper: PaperClient, side: Side, quantity: str | None, at: str = "100", **changes: Any) -> Order:
    return order(paper, side, quantity, at, is_entry=False, **changes)


def protection(paper: PaperClient, side: Side, kind: OrderType, level: str, quantity: str | None = None) -> Order:
    level_of: dict[str, Any] = {"trailing_percent" if kind is OrderType.TRAILING_STOP else "stop_price": D(level)}
    return order(paper, side, quantity, None, is_entry=False, type=kind, reduce_only=True, **level_of)


def usdt(paper: PaperClient) -> Balance:
    return paper.balances()["USDT"]


# --- futures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "gained"), [(Side.BUY, 10), (Side.SELL, -10)])
def test_a_futures_position_sets_its_margin_aside_and_gives_it_back_with_what_it_gained(
    side: Side, gained: int
) -> None:
    paper = PaperFutures(D(1000))
    filled = done(paper, order(paper, side, "1", leverage=D(5)))
    assert filled == Execution(S.FILLED, filled.exchange_order_id, D(1), D(100), (Fee("USDT", D("0.05")),))
    assert usdt(paper) == Balance(D("979.95"), D(20))
    back = Side.SELL if side is Side.BUY else Side.BUY
    done(paper, exit_of(paper, back, "1", "110"))
    assert usdt(paper) == Balance(D(1000) + gained - D("0.05") - D("0.055"), D(0))


def test_a_part_closed_gives_its_part_back() -> None:
    paper = PaperFutures(D(1000))
    done(paper, order(paper, Side.SELL, "4", leverage=D(2)))
    done(paper, exit_of(paper, Side.BUY, "1", "90"))
    assert usdt(paper) == Balance(D(1010) - D("0.2") - D("0.045") - 150, D(150))


def test_an_exit_never_closes_more_than_there_is_and_nothing_is_no_exit() -> None:
    paper = PaperFutures(D(1000))
    done(paper, order(paper, Side.BUY, "1"))
    assert done(paper, exit_of(paper, Side.SELL, "7")).executed_quantity == 1
    assert "ReduceOnly" in refusal(paper, exit_of(paper, Side.SELL, "1"))
    done(paper, order(paper, Side.SELL, "1"))
    assert "ReduceOnly" in refusal(paper, exit_of(paper, Side.SELL, "1"))


def test_margin_runs_out_to_the_cent() -> None:
    paper = PaperFutures(D(100))
    assert "Margin is insufficient" in refusal(paper, order(paper, Side.BUY, "10.00000001", leverage=D(10)))
    assert done(paper, order(paper, Side.BUY, "10", leverage=D(10))).status is S.FILLED
    assert "Margin is insufficient" in refusal(paper, order(paper, Side.SELL, "1", leverage=D(10), symbol="ETHUSDT"))


def test_a_resting_entry_holds_its_margin_and_a_resting_exit_none() -> None:
    paper = PaperFutures(D(100))
    resting = order(paper, Side.BUY, "1", type=OrderType.LIMIT, price=D(80), leverage=D(2))
    assert done(paper, resting).status is S.NEW
    assert usdt(paper) == Balance(D(60), D(40))
    paper.cancel(resting)
    assert usdt(paper) == Balance(D(100), D(0))
    done(paper, order(paper, Side.BUY, "0.5"))
    done(paper, exit_of(paper, Side.SELL, "0.5", type=OrderType.LIMIT, price=D(120)))
    assert usdt(paper).locked == 50


def test_an_entry_against_what_is_held_closes_it_and_opens_the_rest() -> None:
    paper = PaperFutures(D(1000))
    done(paper, order(paper, Side.BUY, "1"))
    done(paper, order(paper, Side.SELL, "3", "110"))
    assert usdt(paper) == Balance(D(1010) - D("0.05") - D("0.165") - 220, D(220))


@pytest.mark.parametrize("market", [PaperClient, PaperFutures])
@pytest.mark.parametrize(
    ("kind", "level", "prices"),
    [
        (OrderType.STOP, "90", ["90.01", "90"]),
        (OrderType.TAKE_PROFIT, "110", ["109.99", "110"]),
        (OrderType.TRAILING_STOP, "10", ["100", "120", "108.01", "108"]),
    ],
)
def test_protection_of_a_long_waits_for_exactly_its_price(
    market: type[PaperClient], kind: OrderType, level: str, prices: Sequence[str]
) -> None:
    paper = market(D(1000))
    bought = done(paper, order(paper, Side.BUY, "1"))
    kept = bought.executed_quantity - sum(fee.amount for fee in bought.fees if fee.asset == "BTC")
    waits = protection(paper, Side.SELL, kind, level, str(kept))
    assert done(paper, waits).status is S.NEW
    for price in prices[:-1]:
        paper.saw_price(SYMBOL, D(price))
        assert paper._orders[waits.client_order_id][1].status is S.NEW, price
    paper.saw_price(SYMBOL, D(prices[-1]))
    filled = paper._orders[waits.client_order_id][1]
    assert (filled.status, filled.executed_quantity, filled.executed_quote) == (S.FILLED, kept, kept * D(prices[-1]))


@pytest.mark.parametrize(
    ("kind", "level", "prices"),
    [
        (OrderType.STOP, "110", ["109.99", "110"]),
        (OrderType.TAKE_PROFIT, "90", ["90.01", "90"]),
        (OrderType.TRAILING_STOP, "10", ["100", "80", "87.99", "88"]),
    ],
)
def test_protection_of_a_short_is_its_mirror(kind: OrderType, level: str, prices: Sequence[str]) -> None:
    paper = PaperFutures(D(1000))
    done(paper, order(paper, Side.SELL, "1"))
    waits = protection(paper, Side.BUY, kind, level, "1" if kind is OrderType.TRAILING_STOP else None)
    assert done(paper, waits).status is S.NEW
    for price in prices[:-1]:
        paper.saw_price(SYMBOL, D(price))
        assert paper._orders[waits.client_order_id][1].status is S.NEW, price
    paper.saw_price(SYMBOL, D(prices[-1]))
    assert paper._orders[waits.client_order_id][1].executed_quantity == 1


@pytest.mark.parametrize("market", [PaperClient, PaperFutures])
def test_protection_that_finds_nothing_left_ends_without_a_trade(market: type[PaperClient]) -> None:
    paper = market(D(1000))
    done(paper, order(paper, Side.BUY, "1"))
    stop = protection(paper, Side.SELL, OrderType.STOP, "90", "1")
    done(paper, stop)
    free = paper.balances().get("BTC", Balance(D(1))).free
    done(paper, exit_of(paper, Side.SELL, str(free)))
    before = usdt(paper)
    paper.saw_price(SYMBOL, D(80))
    ended = paper._orders[stop.client_order_id][1]
    assert ended == Execution(S.EXPIRED, ended.exchange_order_id)
    assert usdt(paper) == before


# --- a restart --------------------------------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(
        st.sampled_from(Side), st.booleans(), st.decimals("0.01", "3", places=2), st.decimals("50", "200", places=2),
        st.integers(1, 5),
    ),
    max_size=10,
)  # fmt: skip


@given(moves)
def test_a_restart_finds_the_futures_balance_that_the_trades_left(
    script: list[tuple[Side, bool, Decimal, Decimal, int]],
) -> None:
    paper, books = PaperFutures(D(1000)), Books()
    for number, (side, is_entry, quantity, price, leverage) in enumerate(script):
        wanted = order(paper, side, str(quantity), str(price), is_entry=is_entry, leverage=D(leverage))
        wanted = replace(wanted, client_order_id=f"gh{number}", signal_id=f"s{number}")
        outcome = paper.place(wanted)
        if isinstance(outcome, Done):
            record = DecisionRecord(wanted.signal_id, "k", NOW, NOW, Decision.ACCEPTED, "", "", None, "PAPER", wanted)
            books = fold(books, Decided(record))
            books = fold(books, OrderChanged(advanced(books, wanted, outcome.execution, NOW), NOW))
    again = PaperFutures(D(1000))
    flows = {asset: change for (account, asset), change in books.flows.items() if account == FUTURES}
    again.restore(flows, {}, books.positions.values(), [])
    assert usdt(again).free == pytest.approx(usdt(paper).free, abs=D("1e-12"))
    assert usdt(again).locked == pytest.approx(usdt(paper).locked, abs=D("1e-12"))
    held = {symbol: each.signed for symbol, each in paper._open.items()}
    assert {symbol: each.signed for symbol, each in again._open.items()} == held
