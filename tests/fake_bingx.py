"""A fake BingX on loopback, perpetual swap (USDT-M) and spot: the wire protocol, the rules that cost money, and faults.

    with FakeBingx() as fake:
        fake.set_price("BTC-USDT", "60000")
        fake.fail_next("reset", executed=True)      # the next order is placed, its answer never comes
        ...                                         # talk to fake.url with API_KEY and API_SECRET
        assert fake.posts_by_client_id["my_id"] == 1

Every answer is HTTP 200 with {"code", "msg", "data"}, errors too. Nothing is forgiven that the documentation does not
forgive: https://bingx-api.github.io/docs-v3 (BingX-API/docs-v3 @d84f954). Sockets: fake_wire.py.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from fake_wire import Connection, RawRequest, Reply, WireServer

API_KEY = "fakeBingxKey000000000000000000000000000000000000"
API_SECRET = "fakeBingxSecret00000000000000000000000000000000"
WINDOW_MS = 5000
SPOT_CLIENT_ID_MS = 2 * 3600 * 1000
ZERO = Decimal(0)
TAKER = Decimal("0.0005")
SPOT_FEE = Decimal("0.001")
FIRST_ORDER_ID = 2075327018132791296
CONDITIONAL = {"STOP_MARKET": "SL", "TAKE_PROFIT_MARKET": "TP"}
KINDS = ("reset", "close", "stall", "truncated", "delay", "drip", "status", "code", "other_order")
ALWAYS = {"timestamp", "recvWindow", "signature"}

Row = dict[str, Any]
Number = str | int | Decimal


class Refusal(Exception):
    """A code that is not 0, with its text."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code, self.msg = code, msg


@dataclass(slots=True)
class Fault:
    """For the next `times` requests that fit `where` ("METHOD path", * is a wildcard)."""

    kind: str
    where: str
    times: int = 1
    executed: bool = False  # the request has its effect before the trouble shows
    seconds: float = 0.0
    code: int = 0
    msg: str = ""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    order_type: str = ""  # only orders of this type


@dataclass(slots=True)
class Call:
    """One request as it came in, and what it got."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    query: str = ""
    code: int | None = None
    fault: str = ""
    banned: bool = False  # it came while its endpoint was closed: a good client makes no such call
    told: int = 0  # the code, or else the status, that went back

    @property
    def was_turned_away(self) -> bool:
        """At the door: nothing of it got to the exchange."""
        return (self.told or self.code) in (418, 429, 100410, 100421)


@dataclass(slots=True)
class FakeOrder:
    order_id: int
    market: str  # swap or spot
    symbol: str
    side: str
    position_side: str
    type: str
    quantity: Decimal
    price: Decimal
    stop_price: Decimal
    client_id: str
    reduce_only: bool
    close_position: bool
    time_ms: int
    status: str = "PENDING"
    executed: Decimal = ZERO
    quote: Decimal = ZERO
    commission: Decimal = ZERO  # as BingX tells it: negative when it was paid
    fee_asset: str = ""
    update_ms: int = 0
    shown_at: float = 0.0
    amount: Decimal = ZERO  # quoteOrderQty
    trigger_order_id: int = 0

    @property
    def is_open(self) -> bool:
        return self.status in ("NEW", "PENDING", "PARTIALLY_FILLED")

    @property
    def average(self) -> Decimal:
        return self.quote / self.executed if self.executed else ZERO


@dataclass(slots=True)
class Held:
    """LONG and SHORT by themselves in hedge mode; in one-way mode at most one of the two."""

    quantity: Decimal = ZERO
    entry: Decimal = ZERO


@dataclass(slots=True)
class Options:
    hedge_mode: bool = False
    stops_need_quantity: bool = False  # with closePosition, too: https://github.com/ccxt/ccxt/pull/29106
    nested: bool = False  # {"data": {"order": {…}}} as the documentation has it, or flat as it is live
    code_as_text: bool = False
    keeps_client_ids: bool = True
    engine_seconds: float = 0.005
    fill_seconds: float = 0.0  # between an order's reply and its fill
    lookup_lag_seconds: float = 0.0  # before an order is listed
    margin_asset: str = "VST"
    one_way_side: str = "BOTH"  # what positions are called in one-way mode
    triggers_another: bool = False  # a stop that is triggered becomes a new order, which names it
    limits: bool = True  # so many calls in a second, or the endpoint is closed for five minutes
    second: float = 1.0  # how long that second is: a story may be told with a shorter one, and a shorter pace to fit
    listed_by_update: bool = True
    most_leverage: int = 125  # what is above it becomes it
    fills_while_cancelled: Decimal = ZERO  # executed after the reply to a cancel was made up, before it takes effect
    rejects_position_orders: str = ""  # the text to refuse STOP_MARKET and TAKE_PROFIT_MARKET with


def contract(symbol: str, quantity_precision: int = 4, price_precision: int = 1) -> Row:
    asset, currency = symbol.split("-")
    return {
        "contractId": "100", "symbol": symbol, "size": "0", "quantityPrecision": quantity_precision,
        "pricePrecision": price_precision, "feeRate": 0.0005, "makerFeeRate": 0.0002, "takerFeeRate": 0.0005,
        "tradeMinLimit": 0, "tradeMinQuantity": float(Decimal(1).scaleb(-quantity_precision)), "tradeMinUSDT": 2,
        "maxLongLeverage": 125, "maxShortLeverage": 125, "currency": currency, "asset": asset, "status": 1,
        "apiStateOpen": "true", "apiStateClose": "true", "brokerState": "true",
    }  # fmt: skip


def pair(symbol: str) -> Row:
    return {"symbol": symbol, "minQty": 0.0001826, "maxQty": 18.2663756, "minNotional": 5, "maxNotional": 500000,
            "status": 1, "tickSize": 0.01, "stepSize": 1e-05, "apiStateBuy": True, "apiStateSell": True}  # fmt: skip


class FakeBingx:
    """The exchange. One lock guards everything; nothing sleeps or sends while holding it."""

    def __init__(
        self,
        api_key: str = API_KEY,
        api_secret: str = API_SECRET,
        *,
        clock: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        self.api_key, self.api_secret = api_key, api_secret
        self.clock = clock
        self.options = Options()
        self.contracts = {row["symbol"]: row for row in (contract("BTC-USDT"), contract("ETH-USDT", 2, 2))}
        self.pairs = {row["symbol"]: row for row in (pair("BTC-USDT"), pair("ETH-USDT"))}
        self.prices: dict[str, Decimal] = {"BTC-USDT": Decimal(60000), "ETH-USDT": Decimal(3000)}
        self.wallet = Decimal(10_000)
        self.spot: dict[str, Decimal] = {"USDT": Decimal(10_000)}
        self.orders: list[FakeOrder] = []
        self.held: dict[tuple[str, str], Held] = {}
        self.leverages: dict[tuple[str, str], int] = {}
        self.margin_types: dict[str, str] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._lock = threading.RLock()
        self._server = WireServer(self._serve, port=port)
        self._next_id = FIRST_ORDER_ID
        self._release = threading.Event()
        self._times: dict[str, deque[float]] = {}
        self._closed_until: dict[str, float] = {}

    # --- running ---

    def start(self) -> FakeBingx:
        self._server.listen()
        return self

    def stop(self) -> None:
        self._release.set()
        self._server.stop()

    def __enter__(self) -> FakeBingx:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop_listening(self) -> None:
        self._server.stop_listening()

    def listen(self) -> None:
        self._server.listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    # --- setting the scene ---

    def set_options(self, **options: Any) -> None:
        for name, value in options.items():
            if not hasattr(self.options, name):
                raise ValueError(f"no option {name}")
            setattr(self.options, name, value)

    def set_price(self, symbol: str, price: Number) -> None:
        """Last and mark price; what waits for it is triggered or filled."""
        with self._lock:
            self.prices[symbol] = Decimal(str(price))
            for order in list(self.orders):
                if order.symbol == symbol and order.is_open:
                    self._try(order)

    def set_position(self, symbol: str, side: str, quantity: Number, entry: Number = 60000) -> None:
        self.held[symbol, side] = Held(Decimal(str(quantity)), Decimal(str(entry)))

    def fail_next(self, kind: str, where: str = "POST /openApi/*/trade/order", **more: Any) -> None:
        if kind not in KINDS:
            raise ValueError(f"no fault {kind!r}")
        self.faults.append(Fault(kind, where, **more))

    # --- what happened ---

    @property
    def order_posts(self) -> list[Call]:
        """Every request that could have placed an order, whatever it got."""
        return [call for call in self.calls if call.method == "POST" and call.path.endswith("/trade/order")]

    @property
    def posts_by_client_id(self) -> Counter[str]:
        return Counter(
            call.params.get("clientOrderID") or call.params.get("newClientOrderId", "") for call in self.order_posts
        )

    def amount(self, symbol: str = "BTC-USDT") -> Decimal:
        """What is held, negative for a short."""
        return sum((h.quantity if side == "LONG" else -h.quantity for (s, side), h in self.held.items() if s == symbol), ZERO)  # fmt: skip  # noqa: E501

    @property
    def waiting(self) -> list[FakeOrder]:
        return [order for order in self.orders if order.is_open]

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    # --- one request ---

    def _serve(self, request: RawRequest, connection: Connection) -> bool:
        pairs = [part.partition("=") for part in request.query.split("&") if part]
        params = {name: unquote(value) for name, _, value in pairs}
        call = Call(request.method, request.path, params, request.headers, request.query)
        with self._lock:
            self.calls.append(call)
        fault = self._fault_for(call)
        time.sleep(self.options.engine_seconds)
        if fault and fault.kind == "delay" and not fault.executed:
            self._release.wait(fault.seconds)
        body = None if fault and not fault.executed and fault.kind != "delay" else self._answer(request, call)
        if fault and fault.kind in ("status", "code"):
            call.told = fault.code or fault.status
        if body is None or (fault and fault.kind == "other_order"):
            body = self._made_up(fault, call) if fault else b""
        if fault is None:
            return connection.send(Reply(200, body).encode())
        return self._trouble(fault, body, connection)

    def _fault_for(self, call: Call) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                fits = fnmatchcase(f"{call.method} {call.path}", fault.where)
                if fault.times > 0 and fits and fault.order_type in ("", call.params.get("type")):
                    fault.times -= 1
                    call.fault = fault.kind
                    return fault
        return None

    def _made_up(self, fault: Fault, call: Call) -> bytes:
        if fault.kind == "other_order":
            other = {"orderId": 7, "symbol": "DOGE-USDT", "side": "BUY", "status": "FILLED", "executedQty": "1",
                     "avgPrice": "1", "commission": "0", "cummulativeQuoteQty": "1"}  # fmt: skip
            return self._body(0, "", other)
        return b""

    def _trouble(self, fault: Fault, body: bytes, connection: Connection) -> bool:
        if fault.kind == "reset":
            connection.reset()
            return False
        if fault.kind == "close":
            return False
        if fault.kind == "stall":
            connection.wait_until_client_leaves(self._server.stopping)
            return False
        if fault.kind == "truncated":
            connection.send(Reply(200, body or b'{"code":0,"data":{}}').encode()[:-3])
            return False
        if fault.kind == "drip":
            for byte in Reply(200, body).encode():
                if self._release.wait(fault.seconds) or not connection.send(bytes([byte])):
                    return False
            return True
        if fault.kind == "delay" and fault.executed:
            self._release.wait(fault.seconds)
        if fault.kind in ("status", "code"):
            text = b"<html>504 Gateway Time-out</html>" if not fault.code else self._body(fault.code, fault.msg)
            return connection.send(Reply(fault.status, text, fault.headers).encode())
        return connection.send(Reply(200, body).encode())

    def _answer(self, request: RawRequest, call: Call) -> bytes:
        try:
            handler, public, allowed = ROUTES[f"{call.method} {call.path}"]
        except KeyError:
            call.code = 100404
            return self._body(100404, f"no such api: {call.method} {call.path}")
        with self._lock:
            try:
                if request.body:
                    raise Refusal(100400, "parameters belong into the query")
                unknown = call.params.keys() - allowed - ALWAYS
                if unknown:
                    raise Refusal(100400, f"Invalid parameter: {sorted(unknown)}")
                self._check_limits(call)
                if not public:
                    self._check_signed(request, call)
                data = handler(self, call.params)
                call.code = 0
                return self._body(0, "", data)
            except Refusal as exc:
                call.code = exc.code
                return self._body(exc.code, exc.msg)

    def _check_limits(self, call: Call) -> None:
        """The documented ones, by endpoint, where two documents differ the lower: swap 5 a second, its settings 2, spot
        10 and some of its questions 5."""
        name, now = f"{call.method} {call.path}", time.monotonic()
        slow = "/swap/" in call.path or call.path.endswith(("/cancel", "/myTrades", "/account/balance"))
        most = 2 if call.path.endswith(("/marginType", "/dual")) else 5 if slow else 10
        times = self._times.setdefault(name, deque(maxlen=most))
        if now < self._closed_until.get(name, 0.0):
            call.banned = True
        elif self.options.limits and len(times) == most and now - times[0] < self.options.second:
            self._closed_until[name] = now + 300
        times.append(now)
        if now < self._closed_until.get(name, 0.0):
            until = self.now_ms() + int((self._closed_until[name] - now) * 1000)
            rule = "The endpoint trigger frequency limit rule is currently in the disabled period and will be unblocked"
            raise Refusal(100410, f"code:100410:{rule} after {until}")

    def _body(self, code: int, msg: str, data: Any = None) -> bytes:
        shown: Any = str(code) if self.options.code_as_text else code
        reply: Row = {"code": shown, "msg": msg}
        if code == 0:
            reply["data"] = data
        return json.dumps(reply, separators=(",", ":")).encode()

    def _check_signed(self, request: RawRequest, call: Call) -> None:
        """https://bingx-api.github.io/docs-v3 SignAuth: HMAC-SHA256 of the string as sent, but not encoded."""
        if call.headers.get("x-bx-apikey") != self.api_key:
            raise Refusal(100413, "Incorrect apiKey")
        unsigned, found, signature = request.query.rpartition("&signature=")
        if not found:
            unsigned, found, signature = "", request.query[:10] == "signature=", request.query[10:]  # type: ignore[assignment]
        if not found or not signature:
            raise Refusal(100412, "Null signature")
        wanted = hmac.new(self.api_secret.encode(), unquote(unsigned).encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, signature):
            raise Refusal(100001, "Signature verification failed")
        if not call.params.get("timestamp", "").isdecimal():
            raise Refusal(100421, "Null timestamp or timestamp mismatch")
        if abs(self.now_ms() - int(call.params["timestamp"])) > WINDOW_MS:
            raise Refusal(100421, "Null timestamp or timestamp mismatch")

    # --- orders ---

    def place_swap(self, params: Mapping[str, str]) -> Row:
        symbol, kind = params.get("symbol", ""), params.get("type", "")
        row = self.contracts.get(symbol)
        if row is None or row["status"] != 1:
            raise Refusal(101400, "The trading pair is not available for trading")
        if kind not in ("MARKET", "LIMIT", *CONDITIONAL) or params.get("side") not in ("BUY", "SELL"):
            raise Refusal(80014, "Invalid parameters")
        self._check_mode(params)
        client_id = params.get("clientOrderID", "").lower()
        if client_id and kind in CONDITIONAL:
            raise Refusal(80014, "clientOrderId only supports LIMIT/MARKET order type")
        self._check_client_id(client_id, "swap")
        step = Decimal(1).scaleb(-row["quantityPrecision"])
        quantity = number(params, "quantity") // step * step
        close = params.get("closePosition") == "true"
        price, stop = number(params, "price"), number(params, "stopPrice")
        if close and self.options.stops_need_quantity and quantity <= 0:
            raise Refusal(109400, "parameter quantity or stopPrice is must")
        has_quantity = "quantity" in params and not self.options.stops_need_quantity
        if close and (kind not in CONDITIONAL or has_quantity or "reduceOnly" in params):
            raise Refusal(110400, "The parameters submitted don't meet the requirement.")
        if not close and quantity <= 0:
            raise Refusal(80014, "parameter quantity is must")
        if kind == "LIMIT" and price <= 0:
            raise Refusal(80014, "parameter price is must")
        if params.get("timeInForce", "GTC") not in ("GTC", "IOC", "FOK", "PostOnly"):
            raise Refusal(80014, "Invalid parameters,timeInForce")
        order = self._new("swap", params, quantity, price, stop, client_id, close)
        self._check_swap(order, row)
        self._accept(order)
        if order.is_open and params.get("timeInForce") in ("IOC", "FOK"):
            order.status = "CANCELLED"
        if self.options.nested:
            names = {"orderId": order.order_id, "symbol": symbol, "side": order.side, "type": kind,
                     "positionSide": order.position_side, "clientOrderId": order.client_id,
                     "workingType": "MARK_PRICE"}  # fmt: skip
            return {"order": names}
        told = self._placed(order)
        return told

    def _placed(self, order: FakeOrder) -> Row:
        waits = self.options.fill_seconds > 0
        return {
            "orderId": order.order_id, "orderID": str(order.order_id), "symbol": order.symbol,
            "positionSide": order.position_side, "side": order.side, "type": order.type, "price": text(order.price),
            "quantity": text(order.quantity), "stopPrice": text(order.stop_price), "workingType": "MARK_PRICE",
            "clientOrderID": order.client_id, "clientOrderId": order.client_id, "timeInForce": "GTC",
            "reduceOnly": order.reduce_only, "closePosition": "true" if order.close_position else "",
            "status": "PENDING" if waits else order.status, "avgPrice": "0.00" if waits else text(order.average),
            "executedQty": "0.00" if waits else text(order.executed),
        }  # fmt: skip

    def _check_mode(self, params: Mapping[str, str]) -> None:
        side = params.get("positionSide", "")
        if not self.options.hedge_mode and side != "BOTH":
            raise Refusal(109400, "In the One-way mode, the 'PositionSide' field can only be set to BOTH.")
        if self.options.hedge_mode and side not in ("LONG", "SHORT"):
            raise Refusal(109400, "In the Hedge mode, the 'PositionSide' field can only be set to LONG or SHORT.")
        if self.options.hedge_mode and "reduceOnly" in params:
            raise Refusal(109400, "In the Hedge mode, the 'ReduceOnly' field can not be filled.")

    def _check_client_id(self, client_id: str, market: str) -> None:
        if not client_id:
            return
        if len(client_id) > 40 or (market == "spot" and not all(c.isalnum() or c == "_" for c in client_id)):
            raise Refusal(80014, "Invalid clientOrderID")
        if any(order.client_id == client_id and order.market == market for order in self.orders):
            raise Refusal(101481, "clientOrderID cannot be repeated")

    def _new(
        self,
        market: str,
        params: Mapping[str, str],
        quantity: Decimal,
        price: Decimal,
        stop: Decimal,
        client_id: str,
        close: bool = False,
    ) -> FakeOrder:
        self._next_id += 1024
        return FakeOrder(
            self._next_id, market, params["symbol"], params["side"], params.get("positionSide", ""), params["type"],
            quantity, price, stop, client_id if self.options.keeps_client_ids else "",
            params.get("reduceOnly") == "true", close, self.now_ms(), update_ms=self.now_ms(),
        )  # fmt: skip

    def _check_swap(self, order: FakeOrder, row: Row) -> None:
        price = order.price or self.prices[order.symbol]
        held = self._reduces(order)
        if order.type in CONDITIONAL:
            self._check_conditional(order, held)
            return
        if order.quantity * price < row["tradeMinUSDT"] and not order.reduce_only:
            raise Refusal(
                101400, "Please ensure that the minimum nominal value of the order placed must be greater than 2u"
            )
        if order.reduce_only and held <= 0:
            raise Refusal(101205, "No position to close")
        if order.reduce_only and order.quantity > held:
            raise Refusal(
                101290, "The Reduce Only order can only decrease the position and not be used to open a position."
            )
        opens = order.quantity - min(order.quantity, held)
        if self.options.hedge_mode and self._closes(order):
            if order.quantity > held:
                raise Refusal(101205, "No position to close")
            opens = ZERO
        leverage = self.leverages.get((order.symbol, order.position_side), 5)
        if opens * price / leverage > self.available():
            raise Refusal(101204, "Insufficient margin")

    def _check_conditional(self, order: FakeOrder, held: Decimal) -> None:
        if self.options.rejects_position_orders:
            raise Refusal(110400, self.options.rejects_position_orders)
        if order.stop_price <= 0:
            raise Refusal(80014, "parameter stopPrice is must")
        if held <= 0:
            raise Refusal(101205, "No position to close")
        same = [o for o in self.waiting if (o.symbol, o.type, o.position_side) == (order.symbol, order.type, order.position_side)]  # fmt: skip  # noqa: E501
        if same and order.close_position:
            code, what = (110406, "SL") if CONDITIONAL[order.type] == "SL" else (110407, "TP")
            raise Refusal(code, f"Position {what} order already exists")
        now, sells, is_stop = self.prices[order.symbol], order.side == "SELL", order.type == "STOP_MARKET"
        if is_stop and sells and order.stop_price >= now:
            raise Refusal(110411, "Stop Loss price should be lower than the current price")
        if is_stop and not sells and order.stop_price <= now:
            raise Refusal(110412, "Stop Loss price should be greater than the current price")
        if not is_stop and sells and order.stop_price <= now:
            raise Refusal(110413, "Take Profit price should be greater than the current price")
        if not is_stop and not sells and order.stop_price >= now:
            raise Refusal(110414, "Take Profit price should be lower than the current price")

    def _closes(self, order: FakeOrder) -> bool:
        return (order.side == "SELL") is (order.position_side == "LONG")

    def _reduces(self, order: FakeOrder) -> Decimal:
        """How much of what is held the order could close."""
        side = order.position_side
        if side == "BOTH":
            side = "SHORT" if order.side == "BUY" else "LONG"
        elif not self._closes(order):
            return ZERO
        return self.held.get((order.symbol, side), Held()).quantity

    def _accept(self, order: FakeOrder) -> None:
        order.shown_at = time.monotonic() + self.options.lookup_lag_seconds
        self.orders.append(order)
        if self.options.fill_seconds and order.type == "MARKET":
            threading.Timer(self.options.fill_seconds, self._later, (order,)).start()
            return
        self._try(order)

    def _later(self, order: FakeOrder) -> None:
        with self._lock:
            if order.is_open:
                self._try(order)

    def _try(self, order: FakeOrder) -> None:
        """Fills what can be filled at the price there is."""
        price, buys = self.prices[order.symbol], order.side == "BUY"
        if order.type == "LIMIT" and not (price <= order.price if buys else price >= order.price):
            return
        if order.type in CONDITIONAL:
            upwards = (order.type == "STOP_MARKET") is buys
            if not (price >= order.stop_price if upwards else price <= order.stop_price):
                return
            if order.close_position:
                order.quantity = self._reduces(order)
            if order.quantity <= 0:
                order.status = "CANCELLED"
                return
        if order.type in CONDITIONAL and self.options.triggers_another:
            self._next_id += 1024
            child = replace(order, order_id=self._next_id, trigger_order_id=order.order_id, type="MARKET")
            order.status, order.update_ms, order.quantity = "FILLED", self.now_ms(), ZERO
            child.close_position = False
            self.orders.append(child)
            order = child
        if order.market == "spot":
            self._fill_spot(order, order.price if order.type == "LIMIT" else price)
        else:
            self._fill_swap(order, order.price if order.type == "LIMIT" else price)

    def _fill_swap(self, order: FakeOrder, price: Decimal) -> None:
        order.executed, order.quote, order.status = order.quantity, order.quantity * price, "FILLED"
        order.commission, order.fee_asset = -(order.quote * TAKER), self.options.margin_asset
        order.update_ms = self.now_ms()
        self.wallet += order.commission
        self._move(order, price)
        gone = {symbol for (symbol, _), held in self.held.items() if not held.quantity}
        for other in self.waiting:
            if other.close_position and other.symbol in gone and not self._reduces(other):
                other.status, other.update_ms = "CANCELLED", self.now_ms()

    def _move(self, order: FakeOrder, price: Decimal) -> None:
        left, buys = order.quantity, order.side == "BUY"
        opens = order.position_side if order.position_side != "BOTH" else ("LONG" if buys else "SHORT")
        closes = order.position_side if order.position_side != "BOTH" else ("SHORT" if buys else "LONG")
        if order.position_side == "BOTH" or self._closes(order):
            held = self.held.setdefault((order.symbol, closes), Held())
            taken = min(left, held.quantity)
            self.wallet += taken * (price - held.entry) * (1 if closes == "LONG" else -1)
            held.quantity -= taken
            left -= taken
        if left > 0 and not (order.position_side != "BOTH" and self._closes(order)):
            held = self.held.setdefault((order.symbol, opens), Held())
            held.entry = (held.entry * held.quantity + price * left) / (held.quantity + left)
            held.quantity += left

    def available(self) -> Decimal:
        used = sum((h.quantity * h.entry / self.leverages.get((symbol, "BOTH"), 5) for (symbol, _), h in self.held.items()), ZERO)  # fmt: skip  # noqa: E501
        return self.wallet - used

    def _fill_spot(self, order: FakeOrder, price: Decimal) -> None:
        base, quote = order.symbol.split("-")
        step = Decimal("0.00001")
        quantity = order.quantity or (order.amount / price) // step * step
        order.executed, order.quote, order.status = quantity, quantity * price, "FILLED"
        buys = order.side == "BUY"
        order.fee_asset = base if buys else quote
        order.commission = -(quantity if buys else order.quote) * SPOT_FEE
        sign = 1 if buys else -1
        self.spot[base] = self.spot.get(base, ZERO) + sign * quantity
        self.spot[quote] = self.spot.get(quote, ZERO) - sign * order.quote
        self.spot[order.fee_asset] += order.commission
        order.update_ms = self.now_ms()

    def place_spot(self, params: Mapping[str, str]) -> Row:
        symbol, kind, side = params.get("symbol", ""), params.get("type", ""), params.get("side", "")
        if symbol not in self.pairs:
            raise Refusal(100421, "The symbol you request is not available to place order currently")
        if kind not in ("MARKET", "LIMIT") or side not in ("BUY", "SELL"):
            raise Refusal(100400, "Invalid parameter")
        client_id = params.get("newClientOrderId", "").lower()
        self._check_client_id(client_id, "spot")
        quantity, amount, price = (number(params, name) for name in ("quantity", "quoteOrderQty", "price"))
        quantity = quantity // Decimal("0.00001") * Decimal("0.00001")
        if kind == "LIMIT" and price <= 0:
            raise Refusal(100400, "price can't be lte 0 in limit order")
        worth = amount if not quantity else quantity * (price or self.prices[symbol])
        if worth < self.pairs[symbol]["minNotional"]:
            raise Refusal(100400, "check limit entrust value fail, entrust volume too low")
        base, quote = symbol.split("-")
        has, needs = (self.spot.get(quote, ZERO), worth) if side == "BUY" else (self.spot.get(base, ZERO), quantity)
        if needs > has:
            raise Refusal(100202, "Insufficient assets, please verify the assets status")
        order = self._new("spot", params, quantity, price, ZERO, client_id)
        order.amount = amount
        self._accept(order)
        if order.is_open and params.get("timeInForce") in ("IOC", "FOK"):
            order.status = "CANCELED"
        waits = self.options.fill_seconds > 0
        return {
            "symbol": symbol, "orderId": order.order_id, "transactTime": order.time_ms, "price": text(price),
            "origQty": text(quantity), "executedQty": "0" if waits else text(order.executed),
            "cummulativeQuoteQty": "0" if waits else text(order.quote),
            "status": "PENDING" if waits else order.status, "type": kind, "side": side,
            "origClientOrderId": order.client_id,
        }  # fmt: skip

    # --- how orders stand ---

    def _find(self, market: str, params: Mapping[str, str], id_name: str) -> FakeOrder:
        wanted, client_id = params.get("orderId", ""), params.get(id_name, "").lower()
        if not wanted and not client_id:
            raise Refusal(100400, "orderId or clientOrderId is must")
        for order in self.orders:
            if order.market != market or order.symbol != params.get("symbol") or time.monotonic() < order.shown_at:
                continue
            too_old = market == "spot" and not wanted and self.now_ms() - order.time_ms > SPOT_CLIENT_ID_MS
            if not too_old and (str(order.order_id) == wanted or (client_id and order.client_id == client_id)):
                return order
        raise Refusal(109414, "order not exist") if market == "swap" else Refusal(100404, "order not exist")

    def swap_row(self, order: FakeOrder) -> Row:
        return {
            "symbol": order.symbol, "orderId": order.order_id, "side": order.side,
            "positionSide": order.position_side, "type": order.type, "origQty": text(order.quantity),
            "price": text(order.price), "executedQty": text(order.executed), "avgPrice": text(order.average),
            "cumQuote": str(round(order.quote)), "stopPrice": text(order.stop_price) if order.stop_price else "",
            "profit": "0.0000", "commission": text(order.commission), "status": order.status, "time": order.time_ms,
            "updateTime": order.update_ms, "clientOrderId": order.client_id, "leverage": "5X",
            "workingType": "MARK_PRICE", "reduceOnly": order.reduce_only,
            "closePosition": "true" if order.close_position else "", "triggerOrderId": order.trigger_order_id,
        }  # fmt: skip

    def spot_row(self, order: FakeOrder) -> Row:
        return {
            "symbol": order.symbol, "orderId": order.order_id, "price": text(order.price), "StopPrice": "0",
            "origQty": text(order.quantity), "executedQty": text(order.executed),
            "cummulativeQuoteQty": text(order.quote), "status": order.status, "type": order.type, "side": order.side,
            "time": order.time_ms, "updateTime": order.update_ms, "origQuoteOrderQty": text(order.amount),
            "fee": text(order.commission), "feeAsset": order.fee_asset, "clientOrderID": order.client_id,
            "avgPrice": text(order.average),
        }  # fmt: skip

    def query_swap(self, params: Mapping[str, str]) -> Row:
        return {"order": self.swap_row(self._find("swap", params, "clientOrderId"))}

    def query_spot(self, params: Mapping[str, str]) -> Row:
        return self.spot_row(self._find("spot", params, "clientOrderID"))

    def cancel_swap(self, params: Mapping[str, str]) -> Row:
        order = self._find("swap", params, "clientOrderID")
        if not order.is_open:
            raise Refusal(80018, "order is already filled, The order doesn't exist")
        order.status, order.update_ms = "CANCELLED", self.now_ms()
        told = {"order": self.swap_row(order)}
        if self.options.fills_while_cancelled:
            part = replace(order, quantity=self.options.fills_while_cancelled)
            self._fill_swap(part, order.price)
            order.executed, order.quote, order.commission = part.executed, part.quote, part.commission
        return told

    def cancel_spot(self, params: Mapping[str, str]) -> Row:
        order = self._find("spot", params, "clientOrderID")
        if not order.is_open:
            raise Refusal(
                100400, "the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id"
            )
        order.status, order.update_ms = "CANCELED", self.now_ms()
        return self.spot_row(order)

    def _listed(self, market: str, params: Mapping[str, str]) -> list[FakeOrder]:
        now = time.monotonic()
        symbol = params.get("symbol")
        orders = [o for o in self.orders if o.market == market and now >= o.shown_at]
        return [o for o in orders if symbol in (None, o.symbol)]

    def open_swap(self, params: Mapping[str, str]) -> Row:
        return {"orders": [self.swap_row(o) for o in self._listed("swap", params) if o.is_open]}

    def open_spot(self, params: Mapping[str, str]) -> Row:
        return {"orders": [self.spot_row(o) for o in self._listed("spot", params) if o.is_open]}

    def _past(self, market: str, params: Mapping[str, str], most: int) -> list[FakeOrder]:
        start, end = int(params.get("startTime", 0)), int(params.get("endTime", self.now_ms()))
        if market == "swap" and end - start > 7 * 86_400_000:
            raise Refusal(80014, "the query range is more than seven days")
        # By which of an order's times BingX does not say, so that nobody may rely on either.
        by_update = self.options.listed_by_update and market == "swap"
        told = [o for o in self._listed(market, params) if not o.is_open]
        ended = [o for o in told if start <= (o.update_ms if by_update else o.time_ms) <= end]
        return ended[-min(int(params.get("limit", most)), most) :]

    def all_swap(self, params: Mapping[str, str]) -> Row:
        return {"orders": [self.swap_row(o) for o in self._past("swap", params, 1000)]}

    def history_spot(self, params: Mapping[str, str]) -> Row:
        return {"orders": [self.spot_row(o) for o in self._past("spot", params, int(params.get("pageSize", 100)))]}

    def my_trades(self, params: Mapping[str, str]) -> Row:
        start, end = int(params.get("startTime", 0)), int(params.get("endTime", self.now_ms()))
        wanted = params.get("orderId")
        fills = [
            {"symbol": o.symbol, "id": o.order_id % 100_000_000, "orderId": o.order_id, "price": text(o.average),
             "qty": text(o.executed), "quoteQty": text(o.quote), "commission": float(o.commission),
             "commissionAsset": o.fee_asset, "time": o.update_ms, "isBuyer": o.side == "BUY", "isMaker": False}
            for o in self._listed("spot", params)
            if o.executed and start <= o.update_ms <= end and wanted in (None, str(o.order_id))
        ]  # fmt: skip
        return {"fills": fills[:1000]}

    # --- the account and the market ---

    def balance_swap(self, params: Mapping[str, str]) -> list[Row]:
        used = {"balance": text(self.wallet), "equity": text(self.wallet), "unrealizedProfit": "0.0000",
                "availableMargin": text(self.available()), "usedMargin": text(self.wallet - self.available()),
                "freezedMargin": "0.0000"}  # fmt: skip
        unused = dict.fromkeys(used, "")
        return [
            {"userId": "123", "asset": self.options.margin_asset, **used},
            {"userId": "", "asset": "USDC", **unused},
        ]

    def balance_spot(self, params: Mapping[str, str]) -> Row:
        rows = [{"asset": asset, "free": text(free), "locked": "0"} for asset, free in self.spot.items()]
        return {"balances": [*rows, {"asset": "VST", "free": "100000", "locked": "0"}]}

    def positions(self, params: Mapping[str, str]) -> list[Row]:
        rows = []
        for (symbol, side), held in self.held.items():
            if not held.quantity or params.get("symbol") not in (None, symbol):
                continue
            name, amount = side, held.quantity
            if not self.options.hedge_mode and self.options.one_way_side == "BOTH":
                name, amount = "BOTH", held.quantity if side == "LONG" else -held.quantity
            rows.append({"positionId": "1735", "symbol": symbol, "currency": "USDT", "positionAmt": text(amount),
                         "availableAmt": text(amount), "positionSide": name, "isolated": True,
                         "avgPrice": text(held.entry), "leverage": 5})  # fmt: skip
        return rows

    def mode(self, params: Mapping[str, str]) -> Row:
        return {"dualSidePosition": "true" if self.options.hedge_mode else "false"}

    def leverage(self, params: Mapping[str, str]) -> Row:
        sides = ("LONG", "SHORT") if self.options.hedge_mode else ("BOTH", "BOTH")
        long, short = (self.leverages.get((params["symbol"], side), 5) for side in sides)
        return {"longLeverage": long, "shortLeverage": short, "maxLongLeverage": 125, "maxShortLeverage": 125}

    def set_leverage(self, params: Mapping[str, str]) -> Row:
        sides = ("LONG", "SHORT") if self.options.hedge_mode else ("BOTH",)
        if params.get("side") not in sides:
            mode = "Hedge" if self.options.hedge_mode else "One-way"
            raise Refusal(109400, f"In the {mode} mode, the 'Side' field can only be set to {' or '.join(sides)}.")
        leverage = min(int(params["leverage"]), self.options.most_leverage)
        self.leverages[params["symbol"], params["side"]] = leverage
        return {"leverage": leverage, "symbol": params["symbol"]}

    def margin_type(self, params: Mapping[str, str]) -> Row:
        return {"marginType": self.margin_types.get(params["symbol"], "CROSSED")}

    def set_margin_type(self, params: Mapping[str, str]) -> None:
        if any(o.symbol == params["symbol"] for o in self.waiting) or self.amount(params["symbol"]):
            raise Refusal(109400, "the account has positions or pending orders")
        self.margin_types[params["symbol"]] = params["marginType"]

    def price_swap(self, params: Mapping[str, str]) -> Any:
        rows = [{"symbol": s, "price": text(p), "time": self.now_ms()} for s, p in self.prices.items()]
        if "symbol" not in params:
            return rows
        found = [row for row in rows if row["symbol"] == params["symbol"]]
        if not found:
            raise Refusal(109425, f"{params['symbol']} does not exist")
        return found[0]

    def price_spot(self, params: Mapping[str, str]) -> list[Row]:
        symbol = params.get("symbol", "")
        if "_" not in symbol or symbol.replace("_", "-") not in self.prices:
            raise Refusal(100400, "symbol is invalid")
        trade = {"timestamp": self.now_ms(), "tradeId": "1", "price": text(self.prices[symbol.replace("_", "-")]),
                 "amount": "", "type": 1, "volume": "0.1"}  # fmt: skip
        return [{"symbol": symbol, "trades": [trade]}]

    def rules_swap(self, params: Mapping[str, str]) -> list[Row]:
        wanted = params.get("symbol")
        if wanted is not None and wanted not in self.contracts:
            raise Refusal(109425, f"{wanted} does not exist")
        return [row for symbol, row in self.contracts.items() if wanted in (None, symbol)]

    def rules_spot(self, params: Mapping[str, str]) -> Row:
        return {"symbols": [row for symbol, row in self.pairs.items() if params.get("symbol") in (None, symbol)]}

    def server_time(self, params: Mapping[str, str]) -> Row:
        return {"serverTime": self.now_ms()}


Handler = Callable[[FakeBingx, Mapping[str, str]], Any]
NAMED = {"symbol", "orderId"}
SPANS = {"symbol", "startTime", "endTime", "limit", "orderId"}
PAGED = SPANS - {"limit"} | {"pageIndex", "pageSize", "status", "type"}
PLACED = {"symbol", "side", "positionSide", "type", "quantity", "price", "stopPrice", "reduceOnly", "closePosition",
          "workingType", "timeInForce", "clientOrderID"}  # fmt: skip
PLACED_SPOT = {"symbol", "side", "type", "quantity", "quoteOrderQty", "price", "timeInForce", "newClientOrderId"}

# Who serves it, whether it is public, and the parameters it knows.
ROUTES: Mapping[str, tuple[Handler, bool, set[str]]] = {
    "GET /openApi/swap/v2/server/time": (FakeBingx.server_time, True, set()),
    "GET /openApi/swap/v2/quote/contracts": (FakeBingx.rules_swap, True, {"symbol"}),
    "GET /openApi/swap/v1/ticker/price": (FakeBingx.price_swap, True, {"symbol"}),
    "POST /openApi/swap/v2/trade/order": (FakeBingx.place_swap, False, PLACED),
    "GET /openApi/swap/v2/trade/order": (FakeBingx.query_swap, False, NAMED | {"clientOrderId"}),
    "DELETE /openApi/swap/v2/trade/order": (FakeBingx.cancel_swap, False, NAMED | {"clientOrderID"}),
    "GET /openApi/swap/v2/trade/openOrders": (FakeBingx.open_swap, False, {"symbol", "type"}),
    "GET /openApi/swap/v2/trade/allOrders": (FakeBingx.all_swap, False, SPANS),
    "GET /openApi/swap/v3/user/balance": (FakeBingx.balance_swap, False, set()),
    "GET /openApi/swap/v2/user/positions": (FakeBingx.positions, False, {"symbol"}),
    "GET /openApi/swap/v1/positionSide/dual": (FakeBingx.mode, False, set()),
    "GET /openApi/swap/v2/trade/leverage": (FakeBingx.leverage, False, {"symbol"}),
    "POST /openApi/swap/v2/trade/leverage": (FakeBingx.set_leverage, False, {"symbol", "side", "leverage"}),
    "GET /openApi/swap/v2/trade/marginType": (FakeBingx.margin_type, False, {"symbol"}),
    "POST /openApi/swap/v2/trade/marginType": (FakeBingx.set_margin_type, False, {"symbol", "marginType"}),
    "GET /openApi/spot/v1/common/symbols": (FakeBingx.rules_spot, True, {"symbol"}),
    "GET /openApi/spot/v1/ticker/price": (FakeBingx.price_spot, True, {"symbol"}),
    "POST /openApi/spot/v1/trade/order": (FakeBingx.place_spot, False, PLACED_SPOT),
    "GET /openApi/spot/v1/trade/query": (FakeBingx.query_spot, False, NAMED | {"clientOrderID"}),
    "POST /openApi/spot/v1/trade/cancel": (FakeBingx.cancel_spot, False, NAMED | {"clientOrderID"}),
    "GET /openApi/spot/v1/trade/openOrders": (FakeBingx.open_spot, False, {"symbol"}),
    "GET /openApi/spot/v1/trade/historyOrders": (FakeBingx.history_spot, False, PAGED),
    "GET /openApi/spot/v1/trade/myTrades": (FakeBingx.my_trades, False, SPANS | {"fromId"}),
    "GET /openApi/spot/v1/account/balance": (FakeBingx.balance_spot, False, set()),
}


def number(params: Mapping[str, str], name: str) -> Decimal:
    value = params.get(name, "0")
    if "e" in value.lower():
        raise Refusal(80014, f"Invalid parameters,{name}")
    try:
        return Decimal(value)
    except ArithmeticError:
        raise Refusal(80014, f"Invalid parameters,{name}") from None


def text(value: Decimal) -> str:
    return format(value, "f")


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9001)
    with FakeBingx(port=parser.parse_args().port) as running:
        print(running.url, flush=True)
        threading.Event().wait()
