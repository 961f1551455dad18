"""What each REST endpoint demands and answers: parameters, signatures, time window, weights, JSON shapes.

Rules: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security and the pages of the
endpoints there. No sockets and no faults here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

from fake_matching import (
    ALGO_TYPES,
    ZERO,
    ApiError,
    Engine,
    Market,
    NewOrder,
    Order,
    OrderList,
    Row,
    Trade,
    error,
    load,
    rejected,
)
from fake_wire import RawRequest

PARAMETERS: Mapping[str, Mapping[str, list[str]]] = {
    **load("binance_request_params.json")["endpoints"],
    **load("binance_futures_params.json")["endpoints"],
}
DECIMAL = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
CLIENT_ID = r"^[a-zA-Z0-9-_]{1,36}$"
INTEGER = r"^[0-9]{1,20}$"
SYMBOL = r"^[\w\-._&&[^a-z]]{1,50}$"
SYMBOLS = r"^\[(\"[\w\-._&&[^a-z]]{1,50}\"(,\"[\w\-._&&[^a-z]]{1,50}\"){0,}){0,1}\]$"
SIGNATURE = r"^[A-Fa-f0-9]{64}$"

# Python spells Java's "word characters except lower case" in another way.
IN_PYTHON = {SYMBOL: r"^(?:(?![a-z])[\w\-.]){1,50}$", SYMBOLS: r'^\[("(?:(?![a-z])[\w\-.]){1,50}",?)*\]$'}

LEGAL = {
    "symbol": SYMBOL, "symbols": SYMBOLS, "signature": SIGNATURE,
    "quantity": DECIMAL, "quoteOrderQty": DECIMAL, "price": DECIMAL, "stopPrice": DECIMAL, "icebergQty": DECIMAL,
    "abovePrice": DECIMAL, "aboveStopPrice": DECIMAL, "belowPrice": DECIMAL, "belowStopPrice": DECIMAL,
    "newClientOrderId": CLIENT_ID, "origClientOrderId": CLIENT_ID, "listClientOrderId": CLIENT_ID,
    "aboveClientOrderId": CLIENT_ID, "belowClientOrderId": CLIENT_ID,
    "timestamp": INTEGER, "orderId": INTEGER, "orderListId": INTEGER, "fromId": INTEGER, "startTime": INTEGER,
    "endTime": INTEGER, "limit": INTEGER, "trailingDelta": INTEGER, "belowTrailingDelta": INTEGER,
    "strategyId": INTEGER, "strategyType": INTEGER, "recvWindow": DECIMAL,
}  # fmt: skip

# What a type of order needs beyond symbol, side and type, and what it may have; all else is "not required".
NEEDS: Mapping[str, tuple[str, ...]] = {
    "LIMIT": ("timeInForce", "quantity", "price"),
    "LIMIT_MAKER": ("quantity", "price"),
    "MARKET": (),
    "STOP_LOSS": ("quantity", "stopPrice"),
    "STOP_LOSS_LIMIT": ("timeInForce", "quantity", "price", "stopPrice"),
    "TAKE_PROFIT": ("quantity", "stopPrice"),
    "TAKE_PROFIT_LIMIT": ("timeInForce", "quantity", "price", "stopPrice"),
}
MAY_HAVE: Mapping[str, tuple[str, ...]] = {
    "LIMIT": ("icebergQty",), "LIMIT_MAKER": ("icebergQty",), "MARKET": ("quantity", "quoteOrderQty"),
    "STOP_LOSS_LIMIT": ("icebergQty",), "TAKE_PROFIT_LIMIT": ("icebergQty",),
}  # fmt: skip
BY_TYPE = ("timeInForce", "quantity", "quoteOrderQty", "price", "stopPrice", "icebergQty")


@dataclass(slots=True)
class Call:
    """One request, as the log keeps it: never a key or a signature."""

    number: int
    method: str
    path: str
    params: dict[str, str]
    time_ms: int
    arrived_ns: int  # on the machine's monotonic clock, which all its processes share
    connection: int
    status: int | None = None
    code: int | None = None
    order_id: int | None = None
    fault: str | None = None
    banned: bool = False
    in_engine: bool = False  # it got past the door, whatever the engine said

    @property
    def client_id(self) -> str | None:
        return self.params.get("newClientOrderId", self.params.get("clientAlgoId"))

    @property
    def executed(self) -> bool:
        """Did an order come of it?"""
        return self.order_id is not None


@dataclass(frozen=True, slots=True)
class Account:
    """Who may sign."""

    api_key: str
    api_secret: str


# --- parameters -------------------------------------------------------------------------------------------------


def read_params(request: RawRequest) -> dict[str, str]:
    """Query string and form body together; where both have a parameter, the query string counts."""
    query = parse_qsl(request.query, keep_blank_values=True)
    body = parse_qsl(request.body, keep_blank_values=True)
    for pairs in (query, body):
        if len({name for name, _ in pairs}) < len(pairs):
            raise error(-1101, text=2)
    return {**dict(body), **dict(query)}


def check_known(endpoint: str, params: Mapping[str, str]) -> None:
    """No parameter that this endpoint does not know."""
    known = {*PARAMETERS[endpoint]["required"], *PARAMETERS[endpoint]["optional"]}
    if "timestamp" in known:
        known.add("recvWindow")  # every signed endpoint takes it, one page of the docs forgets to say so
    unread = [name for name in params if name not in known]
    if unread and len(params) > len(known):
        raise error(-1101, len(known), len(params))
    if unread:
        raise error(-1104, len(params) - len(unread), len(params))


def check_values(endpoint: str, params: Mapping[str, str], legal_values: Mapping[str, str] = LEGAL) -> None:
    """Mandatory ones are there, none is empty, all are of legal characters."""
    required = PARAMETERS[endpoint]["required"]
    for name in required:
        if not params.get(name):
            raise error(-1102, name, text=1)
    for name, value in params.items():
        if not value:
            raise error(-1105, name)
        legal = legal_values.get(name)
        if legal and not re.match(IN_PYTHON.get(legal, legal), value):
            raise error(-1100, name, legal)
        if legal == INTEGER and int(value) >= 2**63:
            raise error(-1108, name)


def payload_to_sign(request: RawRequest) -> str:
    """The bytes as received, query string and body put together, without the signature."""

    def unsigned(part: str) -> str:
        return "&".join(pair for pair in part.split("&") if not pair.startswith("signature="))

    return unsigned(request.query) + unsigned(request.body)


def sign(secret: str, payload: str) -> str:
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def check_key(account: Account, request: RawRequest) -> None:
    key = request.headers.get("x-mbx-apikey", "")
    # Real keys are 64 letters and digits; a test may choose a shorter one and then that length is the rule.
    if len(key) != len(account.api_key) or not re.fullmatch("[A-Za-z0-9_-]+", key):
        raise error(-2014, status=401)
    if key != account.api_key:
        raise error(-2015, status=401)


def check_signature(account: Account, request: RawRequest, params: Mapping[str, str]) -> None:
    """An HMAC signature may be in either case."""
    expected = sign(account.api_secret, payload_to_sign(request))
    if not hmac.compare_digest(expected, params["signature"].lower()):
        raise error(-1022)


def check_window(params: Mapping[str, str], now_ms: int, *, may_be_ahead: bool = False) -> None:
    """Not older than recvWindow and not a second ahead; asked at receipt and once more before the engine."""
    timestamp = int(params["timestamp"])
    if timestamp > 10**14:  # microseconds are accepted, too
        timestamp //= 1000
    window = Decimal(params.get("recvWindow", "5000"))
    if window > 60_000:
        raise error(-1102, "recvWindow", 60000, text=5)
    if timestamp >= now_ms + 1000 and not may_be_ahead:
        raise error(-1021, text=1)
    if now_ms - timestamp > window:
        raise error(-1021, text=0)


def decimal_param(params: Mapping[str, str], name: str) -> Decimal:
    """A number with no more decimals than the assets have (eight)."""
    text = params.get(name, "0")
    if len(text.partition(".")[2]) > 8:
        raise error(-1111, name)
    return Decimal(text)


def enum_param(params: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str, code: int) -> str:
    value = params.get(name, default)
    if value not in allowed:
        raise error(code, name) if code == -1130 else error(code)
    return value


def read_leg(params: Mapping[str, str], prefix: str, market: Market) -> NewOrder:
    """One of the two orders of an OCO; its parameters carry a prefix."""
    common = ("symbol", "side", "quantity", "selfTradePreventionMode")
    shared = {name: params[name] for name in common if name in params}
    names = {"Type": "type", "ClientOrderId": "newClientOrderId", "Price": "price", "StopPrice": "stopPrice",
             "TimeInForce": "timeInForce", "IcebergQty": "icebergQty", "StrategyId": "strategyId",
             "StrategyType": "strategyType", "TrailingDelta": "trailingDelta"}  # fmt: skip
    own = {plain: params[prefix + name] for name, plain in names.items() if prefix + name in params}
    return read_order({**shared, **own}, market)


def check_pair(above: NewOrder, below: NewOrder) -> None:
    """One waits for a better price, the other for a worse one, each on its own side of the market."""
    better, worse = (below, above) if above.is_buy else (above, below)
    if better.type not in ("LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"):
        raise error(-1196 if above.is_buy else -1197) if better.type.startswith("STOP_LOSS") else error(-1158, text=0)
    if worse.type not in ("STOP_LOSS", "STOP_LOSS_LIMIT"):
        raise error(-1168) if worse.type == "LIMIT_MAKER" else error(-1158, text=0)


def new_client_id() -> str:
    return uuid4().hex[:22]


def read_order(params: Mapping[str, str], market: Market) -> NewOrder:
    """The order that these parameters describe."""
    side = enum_param(params, "side", ("BUY", "SELL"), "", -1117)
    kind = enum_param(params, "type", tuple(NEEDS), "", -1116)
    time_in_force = enum_param(params, "timeInForce", ("GTC", "IOC", "FOK"), "GTC", -1115)
    check_fits_type(kind, params, market)
    modes = tuple(market.row["allowedSelfTradePreventionModes"])
    return NewOrder(
        symbol=params["symbol"],
        side=side,
        type=kind,
        client_id=params.get("newClientOrderId") or new_client_id(),
        quantity=decimal_param(params, "quantity"),
        quote_quantity=decimal_param(params, "quoteOrderQty"),
        price=decimal_param(params, "price"),
        stop_price=decimal_param(params, "stopPrice"),
        time_in_force=time_in_force,
        stp_mode=enum_param(
            params, "selfTradePreventionMode", (*modes, "NONE"), market.row["defaultSelfTradePreventionMode"], -1130
        ),
        trailing_delta=int(params.get("trailingDelta", "0")),
        labels=tuple((name, int(params[name])) for name in ("strategyId", "strategyType") if name in params),
    )


def check_trailing(kind: str, params: Mapping[str, str], market: Market) -> None:
    """Served: sales that trail from the moment they are placed; all else shall be noticed by a client that needs it.

    https://developers.binance.com/docs/binance-spot-api-docs/faqs/trailing-stop-faq
    """
    served = kind == "STOP_LOSS" and params["side"] == "SELL" and "stopPrice" not in params
    if not served or not market.row["allowTrailingStop"]:
        raise rejected("Trailing stop orders are not supported for this symbol.")


def check_fits_type(kind: str, params: Mapping[str, str], market: Market) -> None:
    if "trailingDelta" in params:
        check_trailing(kind, params, market)
    if any(name.startswith("peg") for name in params):
        raise rejected("Pegged orders are not supported for this symbol.")
    for name in NEEDS[kind]:
        if name not in params and not (name == "stopPrice" and "trailingDelta" in params):
            raise error(-1102, name, text=1)
    for name in BY_TYPE:
        if name in params and name not in (*NEEDS[kind], *MAY_HAVE.get(kind, ())):
            raise error(-1106, name, text=1)
    if kind == "MARKET" and "quantity" not in params and "quoteOrderQty" not in params:
        raise error(-1102, "quantity", "quoteOrderQty", text=2)
    if kind == "MARKET" and "quantity" in params and "quoteOrderQty" in params:
        raise error(-1106, "quantity", text=1)
    if int(params.get("strategyType", "1000000")) < 1_000_000:
        raise error(-1134, text=0)
    if "icebergQty" in params and params.get("timeInForce", "GTC") != "GTC":
        raise error(-1160, "icebergQty")


# --- replies ----------------------------------------------------------------------------------------------------


def number(value: Decimal) -> str:
    """Binance sends numbers as text with eight decimals."""
    return f"{value:.8f}"


def conditional_fields(order: Order) -> Row:
    """Fields that only some orders have."""
    fields: Row = dict(order.labels)
    if order.type in ALGO_TYPES:
        fields["stopPrice"] = number(order.stop_price)
    if order.trailing_delta:
        fields["trailingDelta"] = order.trailing_delta
    if order.expiry_reason:
        fields["expiryReason"] = order.expiry_reason
    return fields


def ack(order: Order, now_ms: int) -> Row:
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        "transactTime": now_ms,
    }


def state(order: Order) -> Row:
    return {
        "price": number(order.price),
        "origQty": number(order.quantity),
        "executedQty": number(order.executed),
        "origQuoteOrderQty": number(order.quote_quantity),
        "cummulativeQuoteQty": number(order.quote_executed),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
    }


def result(order: Order, now_ms: int) -> Row:
    return {
        **ack(order, now_ms),
        **state(order),
        "workingTime": order.working_ms,
        "selfTradePreventionMode": order.stp_mode,
        **conditional_fields(order),
    }


def full(order: Order, trades: list[Trade], now_ms: int) -> Row:
    return {**result(order, now_ms), "fills": [fill(trade) for trade in trades]}


def fill(trade: Trade) -> Row:
    return {
        "price": number(trade.price),
        "qty": number(trade.quantity),
        "commission": number(trade.commission),
        "commissionAsset": trade.commission_asset,
        "tradeId": trade.trade_id,
    }


def queried(order: Order) -> Row:
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        **state(order),
        "stopPrice": number(order.stop_price),
        "icebergQty": number(ZERO),
        "time": order.time_ms,
        "updateTime": order.update_ms,
        "isWorking": order.working_ms >= 0,
        "workingTime": order.working_ms,
        "selfTradePreventionMode": order.stp_mode,
        **conditional_fields(order),
    }


def canceled(order: Order, cancel_id: str, now_ms: int) -> Row:
    return {
        **ack(order, now_ms),
        "origClientOrderId": order.client_id,
        "clientOrderId": cancel_id,
        **state(order),
        "selfTradePreventionMode": order.stp_mode,
        **conditional_fields(order),
    }


def order_list(pair: OrderList, orders: list[Order], is_open: bool, now_ms: int) -> Row:
    return {
        "orderListId": pair.list_id,
        "contingencyType": "OCO",
        "listStatusType": "EXEC_STARTED" if is_open else "ALL_DONE",
        "listOrderStatus": "EXECUTING" if is_open else "ALL_DONE",
        "listClientOrderId": pair.client_id,
        "transactionTime": now_ms,
        "symbol": pair.symbol,
        "orders": [
            {"symbol": order.symbol, "orderId": order.order_id, "clientOrderId": order.client_id} for order in orders
        ],
    }


def traded(trade: Trade) -> Row:
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": trade.list_id,
        "price": number(trade.price),
        "qty": number(trade.quantity),
        "quoteQty": number(trade.quote_quantity),
        "commission": number(trade.commission),
        "commissionAsset": trade.commission_asset,
        "time": trade.time_ms,
        "isBuyer": trade.is_buyer,
        "isMaker": trade.is_maker,
        "isBestMatch": True,
    }


# --- endpoints --------------------------------------------------------------------------------------------------


Endpoints = TypeVar("Endpoints")


@dataclass(frozen=True, slots=True)
class Route(Generic[Endpoints]):
    """How one endpoint is served: by what, signed or open to all, at what weight."""

    answer: Callable[[Endpoints, Call], Any]
    weight: Callable[[Mapping[str, str]], int]
    signed: bool = True
    places: bool = False  # an order or a cancel: it takes the engine's time ...
    free: bool = True  # ... and weighs nothing when it succeeds


@dataclass(slots=True)
class Rest:
    """The endpoints over one engine. Whoever calls holds the engine's lock."""

    engine: Engine
    now_ms: Callable[[], int]
    lookup_lag_ms: int = 0
    orders_per_10_seconds: int = 100
    rate_limits: list[Row] = field(default_factory=lambda: list(load("binance_symbols.json")["rateLimits"]))

    def ping(self, call: Call) -> Row:
        return {}

    def time(self, call: Call) -> Row:
        return {"serverTime": self.now_ms()}

    def exchange_info(self, call: Call) -> Row:
        if {"permissions", "symbolStatus"} & set(call.params) and {"symbol", "symbols"} & set(call.params):
            raise error(-1128, text=0)
        rows = [market.row for market in self._chosen(call)]
        if call.params.get("showPermissionSets") == "false":
            rows = [{**row, "permissionSets": []} for row in rows]
        return {
            "timezone": "UTC",
            "serverTime": self.now_ms(),
            "rateLimits": self.rate_limits,
            "exchangeFilters": [],
            "symbols": rows,
        }

    def price(self, call: Call) -> Any:
        return self._one_or_all(call, lambda market: {"price": number(market.last)})

    def book_ticker(self, call: Call) -> Any:
        def best(market: Market) -> Row:
            bid, ask = next(iter(market.bids), (ZERO, ZERO)), next(iter(market.asks), (ZERO, ZERO))
            return {"bidPrice": number(bid[0]), "bidQty": number(bid[1]),
                    "askPrice": number(ask[0]), "askQty": number(ask[1])}  # fmt: skip

        return self._one_or_all(call, best)

    def average_price(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        return {"mins": 5, "price": number(market.average), "closeTime": self.now_ms()}

    def depth(self, call: Call) -> Row:
        market, limit = self.engine.market(call.params["symbol"]), int(call.params.get("limit", "100"))
        return {
            "lastUpdateId": market.updates,
            "bids": [[number(price), number(quantity)] for price, quantity in market.bids[:limit]],
            "asks": [[number(price), number(quantity)] for price, quantity in market.asks[:limit]],
        }

    def account(self, call: Call) -> Row:
        omit_zero = call.params.get("omitZeroBalances") == "true"
        rate = number(self.engine.fee_rate)
        return {
            "makerCommission": int(self.engine.fee_rate * 10_000),
            "takerCommission": int(self.engine.fee_rate * 10_000),
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {"maker": rate, "taker": rate, "buyer": number(ZERO), "seller": number(ZERO)},
            "canTrade": True,
            "canWithdraw": False,
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": self.engine.updated_ms,
            "accountType": "SPOT",
            "balances": [
                {"asset": asset, "free": number(balance.free), "locked": number(balance.locked)}
                for asset, balance in sorted(self.engine.balances.items())
                if not omit_zero or balance.free or balance.locked
            ],
            "permissions": ["SPOT"],
            "uid": 354937868,
        }

    def commission(self, call: Call) -> Row:
        rate, none = number(self.engine.fee_rate), number(ZERO)
        nothing = {"maker": none, "taker": none, "buyer": none, "seller": none}
        return {
            "symbol": self.engine.market(call.params["symbol"]).row["symbol"],
            "standardCommission": {**nothing, "maker": rate, "taker": rate},
            "specialCommission": nothing,
            "taxCommission": nothing,
            "discount": {
                "enabledForAccount": self.engine.fees_in_bnb,
                "enabledForSymbol": True,
                "discountAsset": "BNB",
                "discount": "0.75000000",
            },
        }

    def place(self, call: Call) -> Row:
        response_type = self._response_type(call)
        new = read_order(call.params, self.engine.market(call.params["symbol"]))
        call.in_engine = True
        order = self.engine.place(new, self.now_ms())
        call.order_id = order.order_id
        return self.placed(order, response_type)

    def placed(self, order: Order, response_type: str) -> Row:
        if response_type == "ACK":
            return ack(order, order.time_ms)
        if response_type == "RESULT":
            return result(order, order.time_ms)
        return full(order, self.engine.first_fills(order), order.time_ms)

    def test_order(self, call: Call) -> Row:
        self._response_type(call)
        self.engine.check(read_order(call.params, self.engine.market(call.params["symbol"])))
        if call.params.get("computeCommissionRates") != "true":
            return {}
        rates = self.commission(call)
        return {f"{name}CommissionForOrder": {side: rates[f"{name}Commission"][side] for side in ("maker", "taker")}
                for name in ("standard", "special", "tax")} | {"discount": rates["discount"]}  # fmt: skip

    def query(self, call: Call) -> Row:
        horizon = self.now_ms() - self.lookup_lag_ms
        return queried(self._find(call, lambda order: order.time_ms <= horizon))

    def cancel(self, call: Call) -> Row:
        restriction = call.params.get("cancelRestrictions")
        if restriction not in (None, "ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
            raise error(-1145)
        try:
            order = self._find(call, lambda order: order.is_open)
        except ApiError as problem:
            raise (rejected("Unknown order sent.", -2011) if problem.code == -2013 else problem) from None
        if restriction and order.status != restriction.removeprefix("ONLY_"):
            raise rejected("Order was not canceled due to cancel restrictions.", -2011)
        return self._cancel(order, call.client_id or new_client_id())

    def cancel_all(self, call: Call) -> list[Row]:
        symbol = self.engine.market(call.params["symbol"]).row["symbol"]
        if not self.engine.open_orders(symbol):
            raise rejected("Unknown order sent.", -2011)
        cancel_id, rows = new_client_id(), []
        while remaining := self.engine.open_orders(symbol):
            rows.append(self._cancel(remaining[0], cancel_id))
        return rows

    def place_pair(self, call: Call) -> Row:
        """An OCO: a better price to wait for and a worse one to get out at, for one balance."""
        market = self.engine.market(call.params["symbol"])
        response_type = enum_param(call.params, "newOrderRespType", ("ACK", "RESULT", "FULL"), "RESULT", -1130)
        above, below = (read_leg(call.params, prefix, market) for prefix in ("above", "below"))
        check_pair(above, below)
        call.in_engine = True
        pair = self.engine.place_pair(
            call.params.get("listClientOrderId") or new_client_id(), (above, below), self.now_ms()
        )
        call.order_id = pair.order_ids[0]
        reports = [self.placed(order, response_type) for order in self._orders_of(pair)]
        return {**self._list(pair), "orderReports": reports}

    def query_list(self, call: Call) -> Row:
        return self._list(self._find_list(call, "origClientOrderId", error(-2013)))

    def open_lists(self, call: Call) -> list[Row]:
        return [self._list(pair) for pair in self.engine.lists.values() if self.engine.is_open(pair)]

    def cancel_list(self, call: Call) -> Row:
        self.engine.market(call.params["symbol"])
        unknown = rejected("Unknown order sent.", -2011)
        pair = self._find_list(call, "listClientOrderId", unknown)
        open_legs = [order for order in self._orders_of(pair) if order.is_open]
        if not open_legs or pair.symbol != call.params["symbol"]:
            raise unknown
        return self._cancel(open_legs[0], call.client_id or new_client_id())

    def open_orders(self, call: Call) -> list[Row]:
        if "symbol" in call.params:
            self.engine.market(call.params["symbol"])
        wanted = call.params.get("symbol")
        return [queried(order) for order in self._visible() if order.is_open and wanted in (None, order.symbol)]

    def all_orders(self, call: Call) -> list[Row]:
        self._check_span(call)
        symbol = self.engine.market(call.params["symbol"]).row["symbol"]
        orders = [order for order in self._visible() if order.symbol == symbol and within(call, order.time_ms)]
        if "orderId" in call.params:
            return [queried(each) for each in orders if each.order_id >= int(call.params["orderId"])][: limit(call)]
        return [queried(each) for each in newest_or_oldest(call, orders)]

    def my_trades(self, call: Call) -> list[Row]:
        self._check_span(call)
        symbol = self.engine.market(call.params["symbol"]).row["symbol"]
        horizon = self.now_ms() - self.lookup_lag_ms
        order_id, from_id = call.params.get("orderId"), int(call.params.get("fromId", "0"))
        trades = [
            trade
            for trade in self.engine.trades
            if trade.symbol == symbol
            and trade.time_ms <= horizon
            and within(call, trade.time_ms)
            and order_id in (None, str(trade.order_id))
            and trade.trade_id >= from_id
        ]
        return [traded(trade) for trade in (trades[: limit(call)] if from_id else newest_or_oldest(call, trades))]

    def order_counts(self, call: Call) -> list[Row]:
        return self.order_usage()

    def order_usage(self) -> list[Row]:
        """The limits on orders, each with what is used of it."""
        return [
            {**each, "count": self.unfilled(each)} for each in self.rate_limits if each["rateLimitType"] == "ORDERS"
        ]

    # helpers of the above

    def unfilled(self, rate_limit: Row) -> int:
        """Orders of the current interval that have not traded at all; those that trade do not count."""
        seconds = {"SECOND": 1, "MINUTE": 60, "DAY": 86_400}[rate_limit["interval"]] * rate_limit["intervalNum"]
        start = self.now_ms() // (seconds * 1000) * seconds * 1000
        return sum(1 for order in self.engine.untraded.values() if order.time_ms >= start)

    def _response_type(self, call: Call) -> str:
        default = "FULL" if call.params.get("type") in ("MARKET", "LIMIT") else "ACK"
        return enum_param(call.params, "newOrderRespType", ("ACK", "RESULT", "FULL"), default, -1130)

    def _chosen(self, call: Call) -> list[Market]:
        if "symbol" in call.params and "symbols" in call.params:
            raise error(-1128, text=0)
        if "symbol" in call.params:
            markets = [self.engine.market(call.params["symbol"])]
        elif "symbols" in call.params:
            markets = [self.engine.market(name) for name in read_symbols(call.params["symbols"])]
        else:
            markets = list(self.engine.markets.values())
        status = call.params.get("symbolStatus")
        fitting = [market for market in markets if status in (None, market.row["status"])]
        if "symbol" in call.params and not fitting:
            raise error(-1220)
        return fitting

    def _one_or_all(self, call: Call, row: Callable[[Market], Row]) -> Any:
        rows = [{"symbol": market.row["symbol"], **row(market)} for market in self._chosen(call)]
        return rows[0] if "symbol" in call.params else rows

    def _visible(self) -> list[Order]:
        """The look-up's memory trails the engine: an order that exists may not be found yet."""
        horizon = self.now_ms() - self.lookup_lag_ms
        return [order for order in self.engine.orders.values() if order.time_ms <= horizon]

    def _find(self, call: Call, counts: Callable[[Order], bool]) -> Order:
        order_id, client_id = call.params.get("orderId"), call.params.get("origClientOrderId")
        if order_id is None and client_id is None:
            raise error(-1102, "origClientOrderId", "orderId", text=2)
        symbol = self.engine.market(call.params["symbol"]).row["symbol"]
        for order in self.engine.find(int(order_id) if order_id else None, client_id):
            if order.symbol != symbol or not counts(order):
                continue
            if client_id not in (None, order.client_id):
                raise error(-2039)
            return order  # ids may be used again once filled: the newest order is meant
        raise error(-2013)

    def _cancel(self, order: Order, cancel_id: str) -> Row:
        reports = [canceled(each, cancel_id, self.now_ms()) for each in self.engine.cancel(order, self.now_ms())]
        if order.list_id < 0:
            return reports[0]
        reports.sort(key=lambda report: int(report["orderId"]))
        return {**self._list(self.engine.lists[order.list_id]), "orderReports": reports}

    def _orders_of(self, pair: OrderList) -> list[Order]:
        return [self.engine.orders[order_id] for order_id in pair.order_ids]

    def _list(self, pair: OrderList) -> Row:
        return order_list(pair, self._orders_of(pair), self.engine.is_open(pair), pair.time_ms)

    def _find_list(self, call: Call, client_id_name: str, missing: ApiError) -> OrderList:
        list_id, client_id = call.params.get("orderListId"), call.params.get(client_id_name)
        if list_id is None and client_id is None:
            raise error(-1102, client_id_name, "orderListId", text=2)
        for pair in reversed(self.engine.lists.values()):
            if list_id in (None, str(pair.list_id)) and client_id in (None, pair.client_id):
                return pair
        raise missing

    def _check_span(self, call: Call) -> None:
        if "startTime" in call.params and "endTime" in call.params:
            span = int(call.params["endTime"]) - int(call.params["startTime"])
            if span > 86_400_000:
                raise error(-1127, 24)


def read_symbols(text: str) -> list[str]:
    try:
        names: list[str] = json.loads(text)
    except ValueError:
        raise error(-1100, "symbols", SYMBOLS) from None
    if len(set(names)) < len(names):
        raise error(-1151)
    return names


def limit(call: Call) -> int:
    return min(int(call.params.get("limit", "500")), 1000)


def within(call: Call, time_ms: int) -> bool:
    return int(call.params.get("startTime", "0")) <= time_ms <= int(call.params.get("endTime", time_ms))


def newest_or_oldest(call: Call, items: list[Any]) -> list[Any]:
    """The most recent ones, unless a start was given: then the oldest from there on."""
    return items[: limit(call)] if "startTime" in call.params else items[-limit(call) :]


def flat(weight: int) -> Callable[[Mapping[str, str]], int]:
    return lambda params: weight


def ticker_weight(params: Mapping[str, str]) -> int:
    return 2 if "symbol" in params else 4


def depth_weight(params: Mapping[str, str]) -> int:
    wanted = int(params.get("limit", "100")) if params.get("limit", "100").isdecimal() else 0
    return next((weight for most, weight in ((100, 5), (500, 25), (1000, 50)) if wanted <= most), 250)


ROUTES: Mapping[str, Route[Rest]] = {
    "GET /api/v3/ping": Route(Rest.ping, flat(1), signed=False),
    "GET /api/v3/time": Route(Rest.time, flat(1), signed=False),
    "GET /api/v3/exchangeInfo": Route(Rest.exchange_info, flat(20), signed=False),
    "GET /api/v3/ticker/price": Route(Rest.price, ticker_weight, signed=False),
    "GET /api/v3/ticker/bookTicker": Route(Rest.book_ticker, ticker_weight, signed=False),
    "GET /api/v3/avgPrice": Route(Rest.average_price, flat(2), signed=False),
    "GET /api/v3/depth": Route(Rest.depth, depth_weight, signed=False),
    "GET /api/v3/account": Route(Rest.account, flat(20)),
    "GET /api/v3/account/commission": Route(Rest.commission, flat(20)),
    "POST /api/v3/order": Route(Rest.place, flat(1), places=True),
    "POST /api/v3/order/test": Route(
        Rest.test_order, lambda params: 20 if params.get("computeCommissionRates") == "true" else 1
    ),
    "GET /api/v3/order": Route(Rest.query, flat(4)),
    "DELETE /api/v3/order": Route(Rest.cancel, flat(1), places=True),
    "GET /api/v3/openOrders": Route(Rest.open_orders, lambda params: 6 if "symbol" in params else 80),
    "DELETE /api/v3/openOrders": Route(Rest.cancel_all, flat(1), places=True),
    "POST /api/v3/orderList/oco": Route(Rest.place_pair, flat(1), places=True),
    "GET /api/v3/orderList": Route(Rest.query_list, flat(4)),
    "GET /api/v3/openOrderList": Route(Rest.open_lists, flat(6)),
    "DELETE /api/v3/orderList": Route(Rest.cancel_list, flat(1), places=True),
    "GET /api/v3/allOrders": Route(Rest.all_orders, flat(20)),
    "GET /api/v3/myTrades": Route(Rest.my_trades, lambda params: 5 if "orderId" in params else 20),
    "GET /api/v3/rateLimit/order": Route(Rest.order_counts, flat(40)),
}
