"""Conditional futures orders (the Algo service): they wait outside the book until the price touches them.

Rules: https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/New-Algo-Order
States: https://developers.binance.com/docs/derivatives/usds-margined-futures/user-data-streams/Event-Algo-Order-Update
NEW -> TRIGGERING -> TRIGGERED (its order is in the matching engine) -> FINISHED (that order has ended); or REJECTED
(the engine would not have it), CANCELED, EXPIRED (the position that it was to close is gone).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from fake_futures_matching import FuturesEngine, Position
from fake_futures_rules import FuturesMarket, NewFuturesOrder, check_price, decimals, notional, precision, refused
from fake_futures_rules import quantity as check_quantity
from fake_matching import ZERO, ApiError

MOST_WAITING = 200  # per account, since 2025-12
CALLBACK_RATES = (Decimal("0.1"), Decimal(20))  # percent; 20 since 2026-10-23
WAITING = ("NEW", "TRIGGERING")
ENDED = ("FINISHED", "REJECTED", "CANCELED", "EXPIRED")


@dataclass(frozen=True, slots=True)
class NewAlgo(NewFuturesOrder):
    """A conditional order as asked for: the order it will become, and when."""

    trigger_price: Decimal = ZERO
    working_type: str = "CONTRACT_PRICE"
    price_protect: bool = False
    activate_price: Decimal = ZERO
    callback_rate: Decimal = ZERO

    @property
    def at_market(self) -> bool:
        return self.type not in ("STOP", "TAKE_PROFIT")

    @property
    def trails(self) -> bool:
        return self.type == "TRAILING_STOP_MARKET"

    @property
    def family(self) -> str:
        return self.type.removesuffix("_MARKET")


@dataclass(frozen=True, slots=True)
class Algo(NewAlgo):
    """A conditional order that was taken."""

    algo_id: int = 0
    status: str = "NEW"
    create_ms: int = 0
    update_ms: int = 0
    trigger_ms: int = 0
    order_id: int = 0  # of the order it has become
    extreme: Decimal = ZERO  # a trailing stop: the best price since it was placed

    @property
    def is_waiting(self) -> bool:
        return self.status in WAITING


def working_price(new: NewAlgo, market: FuturesMarket) -> Decimal:
    return market.mark if new.working_type == "MARK_PRICE" else market.last


def due(algo: Algo, market: FuturesMarket) -> bool:
    """Has the price come to where it waits?"""
    price = working_price(algo, market)
    if algo.trails:
        way_back = algo.extreme * algo.callback_rate / 100
        if algo.is_buy:
            return algo.extreme <= algo.activate_price and price >= algo.extreme + way_back
        return algo.extreme >= algo.activate_price and price <= algo.extreme - way_back
    waits_for_rise = (algo.family == "STOP") == algo.is_buy
    reached = price >= algo.trigger_price if waits_for_rise else price <= algo.trigger_price
    return reached and not protected(algo, market)


def protected(algo: NewAlgo, market: FuturesMarket) -> bool:
    """priceProtect: nothing happens while mark and last price are too far apart."""
    gap = abs(market.mark - market.last) / market.mark
    return algo.price_protect and gap > Decimal(market.row["triggerProtect"])


def follow(algo: Algo, market: FuturesMarket) -> Algo:
    """A trailing stop remembers the best price it has seen."""
    price = working_price(algo, market)
    better = price < algo.extreme if algo.is_buy else price > algo.extreme
    return replace(algo, extreme=price) if algo.trails and better else algo


def closable(held: Position, new: NewAlgo) -> Position:
    """The position that such an order would close; an empty one when it lies the other way."""
    right_way = held.amount < 0 if new.is_buy else held.amount > 0
    return held if right_way else Position(held.symbol, held.side)


class AlgoDesk:
    """All conditional orders of the account."""

    def __init__(self, engine: FuturesEngine) -> None:
        self.engine = engine
        self.algos: dict[int, Algo] = {}
        self.versions: dict[int, list[Algo]] = {}  # every state one was in, for look-ups that lag
        self.hold_triggers = False  # they stay TRIGGERING until this is off again
        self.child_keeps_id = True  # the order it becomes has its client id; live reports say so, no page promises it
        self._next_id = 3_000_000_001
        self._active: dict[int, Algo] = {}
        self._looking: set[int] = set()
        engine.watchers.append(self.look)

    def waiting(self, symbol: str | None = None) -> list[Algo]:
        return [algo for algo in self._active.values() if algo.is_waiting and symbol in (None, algo.symbol)]

    def place(self, new: NewAlgo, now_ms: int) -> Algo:
        market = self.engine.market(new.symbol)
        self._check(new, market, now_ms)
        price = working_price(new, market)
        values = {name: getattr(new, name) for name in NewAlgo.__dataclass_fields__}
        if new.trails and not new.activate_price:
            values["activate_price"] = price
        algo = Algo(**values, algo_id=self._next_id, create_ms=now_ms, update_ms=now_ms, extreme=price)
        wrong_side = new.activate_price and (new.activate_price >= price if new.is_buy else new.activate_price <= price)
        if (due(algo, market) and not algo.trails) or wrong_side:
            raise refused(-2021)
        self._next_id += 1
        return self._save(algo)

    def cancel(self, algo: Algo, now_ms: int) -> Algo:
        return self._save(replace(algo, status="CANCELED", update_ms=now_ms))

    def look(self, symbol: str, now_ms: int) -> None:
        """After every move of price or position: who has ended, who is left without a position, who is due?"""
        for algo_id in list(self._active):
            algo = self.algos[algo_id]  # as it is now: the one before may have changed it
            if algo.symbol != symbol or algo_id in self._looking:
                continue
            if algo.status == "TRIGGERED" and not self.engine.orders[algo.order_id].is_open:
                self._save(replace(algo, status="FINISHED", update_ms=now_ms))
            elif algo.status == "NEW":
                self._look_at(algo, now_ms)
            elif algo.status == "TRIGGERING" and not self.hold_triggers:
                self._send(algo, now_ms)

    def _look_at(self, algo: Algo, now_ms: int) -> None:
        market = self.engine.market(algo.symbol)
        if algo.close_position and not self._closable(algo).amount:
            self._save(replace(algo, status="EXPIRED", update_ms=now_ms))
            return
        moved = follow(algo, market)
        if moved is not algo:
            algo = self._save(moved)
        if due(algo, market):
            algo = self._save(replace(algo, status="TRIGGERING", trigger_ms=now_ms, update_ms=now_ms))
            if not self.hold_triggers:
                self._send(algo, now_ms)

    def _send(self, algo: Algo, now_ms: int) -> None:
        """It becomes a market or limit order; only now margin and position are looked at."""
        self._looking.add(algo.algo_id)
        try:
            order = self.engine.place(self._child(algo), now_ms)
        except ApiError:
            self._save(replace(algo, status="REJECTED", update_ms=now_ms))
            return
        finally:
            self._looking.discard(algo.algo_id)
        status = "TRIGGERED" if order.is_open else "FINISHED"
        self._save(replace(algo, status=status, order_id=order.order_id, update_ms=now_ms))

    def _child(self, algo: Algo) -> NewFuturesOrder:
        return NewFuturesOrder(
            symbol=algo.symbol,
            side=algo.side,
            type="MARKET" if algo.at_market else "LIMIT",
            client_id=algo.client_id if self.child_keeps_id else f"algo-{algo.algo_id}",
            quantity=abs(self._closable(algo).amount) if algo.close_position else algo.quantity,
            price=algo.price,
            time_in_force="GTC" if algo.at_market else algo.time_in_force,
            position_side=algo.position_side,
            reduce_only=algo.reduce_only or (algo.close_position and algo.position_side == "BOTH"),
            stp_mode=algo.stp_mode,
        )

    def _closable(self, new: NewAlgo) -> Position:
        return closable(self.engine.position(new.symbol, new.position_side), new)

    def _check(self, new: NewAlgo, market: FuturesMarket, now_ms: int) -> None:
        waiting = self.waiting()
        if any(algo.client_id == new.client_id for algo in waiting):
            raise refused(-4116, text=0)
        if len(waiting) >= MOST_WAITING:
            raise refused(-4045)
        if new.trails and not CALLBACK_RATES[0] <= new.callback_rate <= CALLBACK_RATES[1]:
            raise refused(-2007)
        self._check_numbers(new, market)
        if new.close_position:
            self._check_close_position(new, waiting, now_ms)

    def _check_numbers(self, new: NewAlgo, market: FuturesMarket) -> None:
        precision(new, market)
        if not new.close_position:
            check_quantity(new, market)
            notional(new, market)
        if not new.at_market:
            check_price(new.price, market)
        for trigger in (new.trigger_price, new.activate_price):
            if trigger and decimals(trigger) > market.row["pricePrecision"]:
                raise refused(-1111)
            if trigger:
                check_price(trigger, market, too_high=-4007)

    def _check_close_position(self, new: NewAlgo, waiting: list[Algo], now_ms: int) -> None:
        """closePosition needs a position, and one stop and one take-profit for it are enough.

        Neither code is on the docs' error page; public reports of live replies agree on both. They say, too, that
        -4509 may come right after the fill of the order that opened the position: position_lag_seconds does that.
        """
        known = self.engine.known_position(new.symbol, new.position_side, now_ms)
        if not closable(known, new).amount:
            raise refused(-4509)
        alike = (new.symbol, new.side, new.position_side, new.family)
        if any(
            each.close_position and (each.symbol, each.side, each.position_side, each.family) == alike
            for each in waiting
        ):
            raise refused(-4130)

    def _save(self, algo: Algo) -> Algo:
        self.algos[algo.algo_id] = algo
        self.versions.setdefault(algo.algo_id, []).append(algo)
        if algo.status in ENDED:
            self._active.pop(algo.algo_id, None)
        else:
            self._active[algo.algo_id] = algo
        return algo
