"""The futures side of the fake exchange, as a test sees it: set the scene, move the prices, read what happened.

    fake.futures.set_price("BTCUSDT", "60000")           # book, last price and mark price
    fake.futures.set_mark_price("BTCUSDT", "57000")      # only the mark price: stops that watch it are triggered
    fake.overload("unknown", executed=True)              # the next order is placed, and answered with that 503
    assert fake.futures.amount("BTCUSDT") == Decimal("0.01")

Rules: fake_futures_rules.py; book, positions and margin: fake_futures_matching.py; conditional orders: fake_algo.py;
endpoints: fake_futures_rest.py, with fake_futures_params.py before and fake_futures_replies.py behind them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from threading import RLock
from typing import Any

from fake_algo import Algo, AlgoDesk
from fake_api import Api
from fake_futures_matching import FuturesEngine, FuturesOrder, FuturesTrade, Position
from fake_futures_params import FUTURES_LEGAL
from fake_futures_replies import algo_queried, fixed, queried, traded
from fake_futures_rest import FUTURES_ROUTES, FuturesRest
from fake_futures_rules import FUTURES_ERRORS, FuturesMarket
from fake_matching import ZERO, Number, Row, change_filters, exact, levels, load

START_PRICES = {"BTCUSDT": "60000", "ETHUSDT": "3000", "BNBUSDT": "600", "SOLUSDT": "150", "DOGEUSDT": "0.2",
                "XAUUSDT": "4000", "1000SATSUSDT": "0.0002"}  # fmt: skip
OPTIONS = ("weight_limit", "hedge_mode", "hold_triggers", "child_keeps_id", "maker_rate", "taker_rate", "fees_in_bnb",
           "conflict_code", "position_lag_seconds")  # fmt: skip

# The meanings of a 503, told by its text alone: https://developers.binance.com/docs/derivatives/usds-margined-futures/
# general-info. Only the first leaves open whether the order was placed.
OVERLOADS: Mapping[str, tuple[int, str]] = {
    "unknown": (-1000, "Unknown error, please check your request or try again later."),
    "unavailable": (-1000, "Service Unavailable."),
    "internal": (-1001, "Internal error; unable to process your request. Please try again."),
    "throttled": (
        -1008, "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. "
        "Please try again.",
    ),
}  # fmt: skip


class FakeFutures:
    """Contracts, wallet, positions and orders of USDⓈ-M futures. FakeBinance owns it, its lock and its server."""

    def __init__(self, lock: RLock, now_ms: Callable[[], int]) -> None:
        self._lock, self._now_ms = lock, now_ms
        self.engine = FuturesEngine(load("binance_futures_symbols.json")["symbols"])
        self.desk = AlgoDesk(self.engine)
        self.rest = FuturesRest(self.engine, self.desk, now_ms)
        self.api = Api("/fapi/", self.rest, FUTURES_ROUTES, FUTURES_LEGAL, FUTURES_ERRORS, now_ms, weight_limit=2400)
        for symbol, price in START_PRICES.items():
            self.set_price(symbol, price)
        self.set_balance("USDT", 10_000)

    # --- setting the scene

    def set_price(self, symbol: str, price: Number, *, spread: Number = 0, mark: Number | None = None) -> None:
        """A deep, refilling book at this price; the mark price goes along, or to `mark`."""
        with self._lock:
            to = None if mark is None else exact(mark)
            self.engine.set_price(symbol, exact(price), exact(spread), self._now_ms(), to)

    def set_mark_price(self, symbol: str, price: Number) -> None:
        """Only what margin, bands and MARK_PRICE triggers go by."""
        with self._lock:
            self.engine.set_mark(symbol, exact(price), self._now_ms())

    def set_last_price(self, symbol: str, price: Number, *, spread: Number = 0) -> None:
        """Book and last price, which CONTRACT_PRICE triggers go by; the mark price stays."""
        with self._lock:
            mark = self.engine.market(symbol).mark
            self.engine.set_price(symbol, exact(price), exact(spread), self._now_ms(), mark)

    def set_book(
        self,
        symbol: str,
        bids: Iterable[tuple[Number, Number]] = (),
        asks: Iterable[tuple[Number, Number]] = (),
    ) -> None:
        """Exactly these (price, quantity) levels; trades use them up, until the next price or book."""
        with self._lock:
            self.engine.set_book(symbol, levels(bids), levels(asks), self._now_ms())

    def set_balance(self, asset: str, amount: Number) -> None:
        """The cross wallet; what isolated positions hold comes on top."""
        with self._lock:
            self.engine.wallets[asset] = exact(amount)

    def set_filters(self, symbol: str, **filters: Mapping[str, object]) -> None:
        """Change numbers of a symbol's filters, or add a filter."""
        with self._lock:
            change_filters(self.engine.market(symbol), filters)

    def set_symbol(self, symbol: str, **fields: object) -> None:
        """Change a symbol's fields, e.g. status="SETTLING"."""
        with self._lock:
            self.engine.market(symbol).row.update(fields)

    def add_symbol(self, symbol: str, base: str, price: Number, **filters: Mapping[str, object]) -> None:
        """One more contract: BTCUSDT's rules, and these."""
        with self._lock:
            row = json.loads(json.dumps(self.engine.market("BTCUSDT").row))
            row.update(symbol=symbol, pair=symbol, baseAsset=base)
            self.engine.markets[symbol] = FuturesMarket(row)
            self.set_filters(symbol, **filters)
            self.set_price(symbol, price)

    def fill(self, order_id: int, quantity: Number | None = None) -> None:
        """Somebody trades with a resting order: with all of it, or with this much."""
        with self._lock:
            self.engine.fill(order_id, None if quantity is None else exact(quantity), self._now_ms())

    def set_options(self, **options: Any) -> None:
        """The settings in OPTIONS by name, and order_limit (orders in 10 seconds)."""
        with self._lock:
            if "order_limit" in options:
                self._limit_orders(int(options.pop("order_limit")))
            for name, value in options.items():
                self._set_option(name, value)

    def _set_option(self, name: str, value: Any) -> None:
        if name not in OPTIONS:
            raise ValueError(f"no setting {name!r}, there are: {', '.join((*OPTIONS, 'order_limit'))}")
        owner = next(each for each in (self.api, self.engine, self.desk) if hasattr(each, name))
        setattr(owner, name, exact(value) if name.endswith("_rate") else value)
        if name == "hold_triggers" and not value:
            for symbol in self.engine.markets:
                self.desk.look(symbol, self._now_ms())

    def _limit_orders(self, most: int) -> None:
        limits = self.rest.rate_limits
        self.rest.rate_limits = [{**each, "limit": most} if each["interval"] == "SECOND" else each for each in limits]

    # --- what happened

    @property
    def orders(self) -> list[FuturesOrder]:
        """All orders the engine took, oldest first."""
        with self._lock:
            return list(self.engine.orders.values())

    @property
    def algos(self) -> list[Algo]:
        """All conditional orders, oldest first."""
        with self._lock:
            return list(self.desk.algos.values())

    @property
    def trades(self) -> list[FuturesTrade]:
        with self._lock:
            return list(self.engine.trades)

    @property
    def positions(self) -> list[Position]:
        """Those that are not empty."""
        with self._lock:
            return [position for position in self.engine.positions.values() if position.amount]

    def position(self, symbol: str, side: str = "BOTH") -> Position:
        with self._lock:
            return self.engine.position(symbol, side)

    def amount(self, symbol: str, side: str = "BOTH") -> Decimal:
        """How much is held; negative when short."""
        return self.position(symbol, side).amount

    def wallet(self, asset: str = "USDT") -> Decimal:
        """Cross and isolated wallets together, without open profit."""
        with self._lock:
            return self.engine.wallet(asset)

    def available(self, asset: str = "USDT") -> Decimal:
        """What new orders may use as margin."""
        with self._lock:
            return self.engine.available(asset)

    @property
    def orders_by_client_id(self) -> Counter[str]:
        """How many orders each client id has become."""
        return Counter(order.client_id for order in self.orders)

    @property
    def algos_by_client_id(self) -> Counter[str]:
        """How many conditional orders each client id has become."""
        return Counter(algo.client_id for algo in self.algos)

    def state(self) -> Row:
        """All of it as JSON values, for GET /control/state."""
        markets = self.engine.markets
        return {
            "wallets": {asset: fixed(self.engine.wallet(asset)) for asset in self.engine.wallets},
            "available": {asset: fixed(self.engine.available(asset)) for asset in self.engine.wallets},
            "hedgeMode": self.engine.hedge_mode,
            "positions": [
                {"symbol": each.symbol, "positionSide": each.side, "positionAmt": str(each.amount),
                 "entryPrice": str(each.entry_price)}
                for each in self.positions
            ],
            "orders": [queried(order, markets[order.symbol]) for order in self.orders],
            "algoOrders": [
                algo_queried(algo, self.engine.orders.get(algo.order_id), markets[algo.symbol]) for algo in self.algos
            ],
            "trades": [traded(trade, markets[trade.symbol]) for trade in self.trades],
            "realizedPnl": fixed(sum((trade.realized_pnl for trade in self.trades), ZERO)),
            "ordersByClientId": self.orders_by_client_id,
            "algosByClientId": self.algos_by_client_id,
        }  # fmt: skip


FUTURES_CONTROLS: Mapping[str, Callable[[FakeFutures, Row], Any]] = {
    "POST /control/futures/price": lambda futures, body: futures.set_price(**body),
    "POST /control/futures/mark": lambda futures, body: futures.set_mark_price(**body),
    "POST /control/futures/last": lambda futures, body: futures.set_last_price(**body),
    "POST /control/futures/book": lambda futures, body: futures.set_book(**body),
    "POST /control/futures/balance": lambda futures, body: futures.set_balance(**body),
    "POST /control/futures/symbol": lambda futures, body: futures.set_symbol(**body),
    "POST /control/futures/filters": lambda futures, body: futures.set_filters(**body),
    "POST /control/futures/fill": lambda futures, body: futures.fill(**body),
    "POST /control/futures/options": lambda futures, body: futures.set_options(**body),
}
