"""A fake Binance on loopback, spot and USDⓈ-M futures: real HTTP, real rules, and faults on demand.

    with FakeBinance() as fake:
        fake.set_price("BTCUSDT", "60000")
        fake.fail_next("stall", executed=True)       # the next order executes, its answer never comes
        ...                                          # talk to fake.api_url with fake.api_key, fake.api_secret
        assert fake.posts_by_client_id["my-id"] == 1

`python tests/fake_binance.py --port 9000` runs it alone; POST JSON to /control/... drives it then.
It is not idempotent where Binance is not: a resent order is a second order, so that a client's mistake shows.
Endpoints: fake_rest.py; engine: fake_matching.py; limits: fake_api.py; faults: fake_faults.py; sockets: fake_wire.py.
Futures have their own wallet and their own files: fake.futures is in fake_futures.py, served under fake.fapi_url.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from fake_api import Api, Ban
from fake_faults import HTML, KINDS, Fault, FaultQueue, error_body, made_up_reply, reply_for
from fake_futures import FUTURES_CONTROLS, OVERLOADS, FakeFutures
from fake_matching import (
    ERRORS,
    ApiError,
    Balance,
    Engine,
    Number,
    Order,
    Row,
    Trade,
    change_filters,
    error,
    exact,
    levels,
    load,
)
from fake_rest import (
    LEGAL,
    ROUTES,
    Account,
    Call,
    Rest,
    check_key,
    check_known,
    check_signature,
    check_values,
    check_window,
    number,
    queried,
    read_params,
    traded,
)
from fake_wire import Connection, RawRequest, Reply, WireServer

API_KEY = "fakeBinanceKey00000000000000000000000000000000000000000000000000"
API_SECRET = "fakeBinanceSecret00000000000000000000000000000000000000000000000"
START_PRICES = {"BTCUSDT": "60000", "ETHUSDT": "3000", "BNBUSDT": "600", "SOLUSDT": "150", "DOGEUSDT": "0.2",
                "TSLABUSDT": "400"}  # fmt: skip
CONTENT_FAULTS = ("status", "error", "garbage", "truncated", "other_symbol")
DRIP_SECONDS = 0.05


class FakeBinance:
    """The exchange: start it, point a client at `api_url`, set the scene, read what happened.

    One lock guards engine, faults and log; nothing sleeps or sends while holding it.
    """

    def __init__(
        self,
        api_key: str = API_KEY,
        api_secret: str = API_SECRET,
        *,
        port: int = 0,
        clock: Callable[[], float] = time.time,
        balances: Mapping[str, Number] | None = None,
        engine_seconds: float = 0.005,
        lookup_lag_seconds: float = 0.0,
        weight_limit: int = 6000,
    ) -> None:
        self.api_key, self.api_secret = api_key, api_secret
        self.clock = clock
        self.engine_seconds = engine_seconds
        self._lock = threading.RLock()
        self._engine = Engine(load("binance_symbols.json")["symbols"])
        self._rest = Rest(self._engine, self.now_ms)
        self._spot = Api("/api/", self._rest, ROUTES, LEGAL, ERRORS, self.now_ms, weight_limit)
        self.futures = FakeFutures(self._lock, self.now_ms)
        self._apis = (self._spot, self.futures.api)
        self._faults = FaultQueue()
        self._calls: list[Call] = []
        self._server = WireServer(self._serve, self._hang_up_unread, port)
        self._waits, self._releases = threading.Condition(), 0
        self.lookup_lag_seconds = lookup_lag_seconds
        for symbol, price in START_PRICES.items():
            self.set_price(symbol, price)
        for asset, free in ({"USDT": 10_000} if balances is None else balances).items():
            self.set_balance(asset, free)

    # --- running ------------------------------------------------------------------------------------------------

    def start(self) -> FakeBinance:
        self._server.listen()
        return self

    def stop(self) -> None:
        self._server.stopping.set()
        self.release()
        self._server.stop()

    def __enter__(self) -> FakeBinance:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """For the official SDK (base_path)."""
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def api_url(self) -> str:
        """For python-binance (API_URL)."""
        return self.base_url + "/api"

    @property
    def fapi_url(self) -> str:
        """The same for futures (FUTURES_URL)."""
        return self.base_url + "/fapi"

    def now_ms(self) -> int:
        """The exchange's time."""
        return int(self.clock() * 1000)

    def go_offline(self) -> None:
        """Connections are refused, open ones end."""
        self._server.stop_listening()

    def come_online(self) -> None:
        """Accept connections again, at the same address."""
        self._server.listen()

    # --- setting the scene --------------------------------------------------------------------------------------

    @property
    def lookup_lag_seconds(self) -> float:
        """How long after its execution an order stays unknown to GET order, openOrders and myTrades."""
        return self._rest.lookup_lag_ms / 1000

    @lookup_lag_seconds.setter
    def lookup_lag_seconds(self, seconds: float) -> None:
        self._rest.lookup_lag_ms = self.futures.rest.lookup_lag_ms = int(seconds * 1000)

    @property
    def weight_limit(self) -> int:
        """Weight allowed in a minute."""
        return self._spot.weight_limit

    @weight_limit.setter
    def weight_limit(self, most: int) -> None:
        self._spot.weight_limit = most

    @property
    def fees_in_bnb(self) -> bool:
        """Fees come out of BNB (25 % off) as long as there is any; otherwise out of what was received."""
        return self._engine.fees_in_bnb

    @fees_in_bnb.setter
    def fees_in_bnb(self, on: bool) -> None:
        with self._lock:
            self._engine.fees_in_bnb = on

    @property
    def fee_rate(self) -> Decimal:
        return self._engine.fee_rate

    @fee_rate.setter
    def fee_rate(self, rate: Number) -> None:
        with self._lock:
            self._engine.fee_rate = exact(rate)

    @property
    def order_limit(self) -> int:
        """Unfilled orders allowed in 10 seconds."""
        return int(self._order_limit["limit"])

    @order_limit.setter
    def order_limit(self, most: int) -> None:
        with self._lock:
            self._order_limit["limit"] = most

    @property
    def _order_limit(self) -> Row:
        limits = self._rest.rate_limits
        return next(each for each in limits if each["rateLimitType"] == "ORDERS" and each["interval"] == "SECOND")

    def set_price(self, symbol: str, price: Number, *, spread: Number = 0) -> None:
        """A deep, refilling book at this price (asks at price + spread, bids at price - spread).

        Resting orders that the price reaches are filled.
        """
        with self._lock:
            self._engine.set_price(symbol, exact(price), exact(spread), self.now_ms())

    def set_average_price(self, symbol: str, price: Number) -> None:
        """What the filters judge market orders by; set_price() sets it, too."""
        with self._lock:
            self._engine.market(symbol).average = exact(price)

    def set_book(
        self,
        symbol: str,
        bids: Iterable[tuple[Number, Number]] = (),
        asks: Iterable[tuple[Number, Number]] = (),
    ) -> None:
        """Exactly these (price, quantity) levels; trades use them up, until the next set_price or set_book."""
        with self._lock:
            self._engine.set_book(symbol, levels(bids), levels(asks), self.now_ms())

    def set_balance(self, asset: str, free: Number, locked: Number | None = None) -> None:
        with self._lock:
            held = self._engine.balances.get(asset, Balance())
            kept = held.locked if locked is None else exact(locked)
            self._engine.balances[asset] = Balance(exact(free), kept)

    def add_symbol(self, symbol: str, base: str, quote: str, price: Number, **filters: Mapping[str, object]) -> None:
        """One more market: BTCUSDT's rules, no largest quantity, and these, e.g. LOT_SIZE={"stepSize": "1"}."""
        with self._lock:
            row = json.loads(json.dumps(self._engine.market("BTCUSDT").row))
            row.update(symbol=symbol, baseAsset=base, quoteAsset=quote)
            self._engine.add_symbol(row)
            self.set_filters(symbol, LOT_SIZE={"maxQty": "0"}, MARKET_LOT_SIZE={"maxQty": "0"})
            self.set_filters(symbol, **filters)
            self.set_price(symbol, price)

    def set_filters(self, symbol: str, **filters: Mapping[str, object]) -> None:
        """Change numbers of a symbol's filters, or add a filter."""
        with self._lock:
            change_filters(self._engine.market(symbol), filters)

    def set_symbol(self, symbol: str, **fields: object) -> None:
        """Change a symbol's fields, e.g. status="BREAK"."""
        with self._lock:
            self._engine.market(symbol).row.update(fields)

    def fill(self, order_id: int, quantity: Number | None = None) -> None:
        """Somebody trades with a resting order: with all of it, or with this much."""
        with self._lock:
            self._engine.fill(order_id, None if quantity is None else exact(quantity), self.now_ms())

    # --- faults -------------------------------------------------------------------------------------------------

    def inject(self, fault: Fault) -> None:
        with self._lock:
            self._faults.add(fault)

    def fail_next(self, kind: str, where: str = "POST /api/v3/order", **details: Any) -> None:
        """inject(Fault(kind, where, ...)); the kinds are in fake_faults.KINDS."""
        self.inject(Fault(kind, where, **details))

    def overload(self, meaning: str, where: str = "POST /fapi/v1/order", *, executed: bool = False) -> None:
        """The next such futures request gets a 503 of this meaning: one of fake_futures.OVERLOADS."""
        code, message = OVERLOADS[meaning]
        if executed and meaning != "unknown":
            raise ValueError(f"a 503 of meaning {meaning!r} promises that nothing was executed")
        self.fail_next("error", where, status=503, code=code, message=message, executed=executed)

    def clear_faults(self) -> None:
        """No more trouble, and no ban."""
        with self._lock:
            self._faults = FaultQueue()
            for api in self._apis:
                api.ban = Ban()

    def release(self) -> None:
        """End all waits that are under way (delay, late, drip, the engine's own time), as if their time was over."""
        with self._waits:
            self._releases += 1
            self._waits.notify_all()

    @property
    def faults_left(self) -> int:
        with self._lock:
            return self._faults.left

    # --- what happened ------------------------------------------------------------------------------------------

    @property
    def orders(self) -> list[Order]:
        """All orders the engine took, oldest first."""
        with self._lock:
            return list(self._engine.orders.values())

    @property
    def trades(self) -> list[Trade]:
        with self._lock:
            return list(self._engine.trades)

    @property
    def balances(self) -> dict[str, Balance]:
        with self._lock:
            return dict(self._engine.balances)

    def free(self, asset: str) -> Decimal:
        return self.balances.get(asset, Balance()).free

    def locked(self, asset: str) -> Decimal:
        return self.balances.get(asset, Balance()).locked

    @property
    def requests(self) -> list[Call]:
        """All requests since the start (or clear_log), also those that were refused or went wrong."""
        with self._lock:
            return [replace(call) for call in self._calls]

    def calls(self, endpoint: str) -> list[Call]:
        """The requests to one endpoint, e.g. "POST /api/v3/order"."""
        return [call for call in self.requests if f"{call.method} {call.path}" == endpoint]

    def wait_for(self, happened: Callable[[FakeBinance], bool], seconds: float = 5) -> None:
        """Wait until this is true, e.g. lambda fake: len(fake.orders) == 1."""
        end = time.monotonic() + seconds
        while not happened(self):
            if time.monotonic() > end:
                raise AssertionError(f"it did not happen within {seconds} s; the last requests: {self.requests[-3:]}")
            time.sleep(0.002)

    def clear_log(self) -> None:
        with self._lock:
            self._calls.clear()

    @property
    def posts_by_client_id(self) -> Counter[str]:
        """How often each client id was sent as an order, whatever came of it."""
        return Counter(call.client_id or "" for call in self.calls("POST /api/v3/order"))

    @property
    def futures_posts_by_client_id(self) -> Counter[str]:
        """The same for futures orders."""
        return Counter(call.client_id or "" for call in self.calls("POST /fapi/v1/order"))

    @property
    def algo_posts_by_client_id(self) -> Counter[str]:
        """The same for conditional futures orders."""
        return Counter(call.client_id or "" for call in self.calls("POST /fapi/v1/algoOrder"))

    @property
    def orders_by_client_id(self) -> Counter[str]:
        """How many orders each client id has become."""
        return Counter(order.client_id for order in self.orders)

    def state(self) -> Row:
        """All of it as JSON values, for GET /control/state."""
        with self._lock:
            return {
                "serverTime": self.now_ms(),
                "balances": {
                    asset: {"free": number(each.free), "locked": number(each.locked)}
                    for asset, each in self.balances.items()
                },
                "orders": [queried(order) for order in self.orders],
                "trades": [traded(trade) for trade in self.trades],
                "requests": [
                    {name: getattr(call, name) for name in Call.__dataclass_fields__} for call in self.requests
                ],
                "postsByClientId": self.posts_by_client_id,
                "ordersByClientId": self.orders_by_client_id,
                "faultsLeft": self.faults_left,
                "futures": {
                    **self.futures.state(),
                    "postsByClientId": self.futures_posts_by_client_id,
                    "algoPostsByClientId": self.algo_posts_by_client_id,
                },
            }

    # --- one request --------------------------------------------------------------------------------------------

    def _serve(self, request: RawRequest, connection: Connection) -> bool:
        """Answer one request; False when the connection is over."""
        if request.path.startswith("/control/"):
            return connection.send(self._control(request).encode())
        call = self._log(request)
        ban = self._refuse_banned(call)
        if ban:
            return connection.send(ban.encode())
        with self._lock:
            fault = self._faults.take(lambda each: each.kind != "reset_unread" and each.fits(call))
        if fault is None:
            return connection.send(self._answer(request, call).encode())
        call.fault = fault.kind
        return self._serve_badly(request, call, connection, fault)

    def _serve_badly(self, request: RawRequest, call: Call, connection: Connection, fault: Fault) -> bool:
        if fault.kind == "delay":
            return self._serve_late(request, call, connection, fault)
        if fault.kind == "ban":
            self._start_ban(fault, call)
            return connection.send((self._refuse_banned(call) or Reply(fault.status, b"")).encode())
        if fault.kind == "late":
            self._lose(connection, fault.then)
            self._answer(request, call, engine_delay=fault.seconds)
            return self._keep_silent(connection) if fault.then == "stall" else False
        real = self._answer(request, call) if fault.executed else None
        if fault.kind in CONTENT_FAULTS:
            reply = reply_for(fault, real, self._api_of(call).table)
            return reply is not None and connection.send(self._with_counts(reply, call).encode())
        return self._break_line(connection, fault, real or made_up_reply(fault))

    def _break_line(self, connection: Connection, fault: Fault, reply: Reply) -> bool:
        """The reply is lost on its way, all of it or from some byte on."""
        data = reply.encode()
        if fault.kind == "drip":
            return self._drip(connection, data, fault.seconds or DRIP_SECONDS)
        if fault.kind == "stall":
            return self._keep_silent(connection)
        if fault.kind == "half_header":
            # Before the length is known: some clients take a FIN here for the end of a complete, empty answer.
            connection.send(data[: data.find(b"\r\n") + 10])
        if fault.kind == "half_body":
            connection.send(data[: -len(reply.body) // 2])
        if fault.kind in ("half_header", "half_body") and fault.then == "stall":
            return self._keep_silent(connection)
        self._lose(connection, "reset" if fault.kind == "reset" else fault.then)
        return False

    def _serve_late(self, request: RawRequest, call: Call, connection: Connection, fault: Fault) -> bool:
        if not fault.executed:
            return connection.send(self._answer(request, call, door_delay=fault.seconds).encode())
        reply = self._answer(request, call)
        self._wait(fault.seconds)
        return connection.send(reply.encode())

    def _lose(self, connection: Connection, how: str) -> None:
        if how == "reset":
            connection.reset()
        elif how == "close":
            connection.close()

    def _keep_silent(self, connection: Connection) -> bool:
        connection.wait_until_client_leaves(self._server.stopping)
        return False

    def _drip(self, connection: Connection, data: bytes, seconds: float) -> bool:
        for index in range(len(data)):
            if not connection.send(data[index : index + 1]) or self._wait(seconds):
                return False
        return True

    def _hang_up_unread(self) -> bool:
        with self._lock:
            return self._faults.take(lambda each: each.kind == "reset_unread") is not None

    def _wait(self, seconds: float) -> bool:
        """Sleep, until released; True when the server is being stopped."""
        if seconds:
            with self._waits:
                before = self._releases
                self._waits.wait_for(lambda: self._releases != before, seconds)
        return self._server.stopping.is_set()

    def _log(self, request: RawRequest) -> Call:
        with contextlib.suppress(ApiError):
            params = read_params(request)
            params.pop("signature", None)
            return self._append(request, params)
        return self._append(request, {})

    def _append(self, request: RawRequest, params: dict[str, str]) -> Call:
        with self._lock:
            number, now_ns = len(self._calls) + 1, time.monotonic_ns()
            call = Call(number, request.method, request.path, params, self.now_ms(), now_ns, request.connection)
            self._calls.append(call)
            return call

    # --- the answer ---------------------------------------------------------------------------------------------

    def _answer(self, request: RawRequest, call: Call, *, door_delay: float = 0, engine_delay: float = 0) -> Reply:
        """What Binance would answer; `door_delay` passes before the last look at the clock, `engine_delay` after."""
        endpoint = f"{call.method} {call.path}"
        api = self._api_of(call)
        route = api.routes.get(endpoint)
        if route is None:
            return self._not_found(call)
        try:
            body = self._execute(request, call, endpoint, api, door_delay, engine_delay)
            self._use_weight(api, 0 if route.places and route.free else route.weight(call.params))
            reply = Reply(200, json.dumps(body, separators=(",", ":")).encode())
        except ApiError as problem:
            call.code = problem.code
            self._use_weight(api, 0 if problem.status == 429 else route.weight(call.params))
            reply = Reply(problem.status, error_body(problem.code, problem.message), api.retry_after(problem))
        return self._with_counts(reply, call)

    def _execute(
        self, request: RawRequest, call: Call, endpoint: str, api: Api, door_delay: float, engine_delay: float
    ) -> Any:
        params, route = read_params(request), api.routes[endpoint]
        with self._lock:
            api.check_weight(route.weight(call.params))
        if route.signed:
            check_key(self._account, request)
        check_known(endpoint, params)
        check_values(endpoint, params, api.legal)
        if route.signed:
            check_window(params, self.now_ms())
            check_signature(self._account, request, params)
        if self._wait(door_delay):
            raise error(-1016, status=503)
        if route.signed:
            check_window(params, self.now_ms(), may_be_ahead=True)
        if route.places:
            if call.method == "POST":
                with self._lock:
                    api.check_order_limits()
            self._wait(self.engine_seconds + engine_delay)
        with self._lock:
            return route.answer(api.rest, call)

    def _api_of(self, call: Call) -> Api:
        return next((api for api in self._apis if call.path.startswith(api.prefix)), self._spot)

    @property
    def _account(self) -> Account:
        return Account(self.api_key, self.api_secret)

    def _not_found(self, call: Call) -> Reply:
        known = any(endpoint.endswith(f" {call.path}") for api in self._apis for endpoint in api.routes)
        title = "405 Method Not Allowed" if known else "404 Not Found"
        call.status = 405 if known else 404
        return Reply(call.status, HTML.format(title=title).encode(), content_type="text/html")

    def _with_counts(self, reply: Reply, call: Call) -> Reply:
        """The reply with the headers that tell how much of the limits is used."""
        call.status = reply.status
        with self._lock:
            headers = self._api_of(call).counts(call)
        return replace(reply, headers=(*headers, *reply.headers))

    # --- limits -------------------------------------------------------------------------------------------------

    def _use_weight(self, api: Api, weight: int) -> None:
        with self._lock:
            api.use_weight(weight)

    def _start_ban(self, fault: Fault, call: Call) -> None:
        with self._lock:
            self._api_of(call).ban = Ban(fault.status or 429, self.now_ms() + fault.retry_after * 1000)

    def _refuse_banned(self, call: Call) -> Reply | None:
        with self._lock:
            return self._api_of(call).refuse_banned(call)

    # --- the control API: for other processes, loopback only, no signature ---------------------------------------

    def _control(self, request: RawRequest) -> Reply:
        action = CONTROLS.get(f"{request.method} {request.path}")
        if action is None:
            return Reply(404, json.dumps({"error": "no such control", "there are": sorted(CONTROLS)}).encode())
        try:
            answer = action(self, json.loads(request.body or "{}"))
        except (ApiError, AttributeError, KeyError, TypeError, ValueError, InvalidOperation) as problem:
            return Reply(400, json.dumps({"error": f"{type(problem).__name__}: {problem}"}).encode())
        return Reply(200, json.dumps(answer or {}).encode())

    def set_options(self, **options: Any) -> None:
        """The settings by name, e.g. lookup_lag_seconds=2; clock_offset_seconds moves the exchange's clock."""
        allowed = ("lookup_lag_seconds", "engine_seconds", "weight_limit", "order_limit", "fees_in_bnb", "fee_rate")
        if "clock_offset_seconds" in options:
            offset = float(options.pop("clock_offset_seconds"))
            self.clock = lambda: time.time() + offset
        for name, value in options.items():
            if name not in allowed:
                raise ValueError(f"no setting {name!r}, there are: {', '.join((*allowed, 'clock_offset_seconds'))}")
            setattr(self, name, value)


def on_futures(action: Callable[[FakeFutures, Row], Any], fake: FakeBinance, body: Row) -> Any:
    return action(fake.futures, body)


CONTROLS: Mapping[str, Callable[[FakeBinance, Row], Any]] = {
    "GET /control/state": lambda fake, body: fake.state(),
    "POST /control/price": lambda fake, body: fake.set_price(**body),
    "POST /control/average": lambda fake, body: fake.set_average_price(**body),
    "POST /control/book": lambda fake, body: fake.set_book(**body),
    "POST /control/balance": lambda fake, body: fake.set_balance(**body),
    "POST /control/symbol": lambda fake, body: fake.set_symbol(**body),
    "POST /control/filters": lambda fake, body: fake.set_filters(**body),
    "POST /control/fill": lambda fake, body: fake.fill(**body),
    "POST /control/fault": lambda fake, body: fake.inject(Fault(**body)),
    "POST /control/overload": lambda fake, body: fake.overload(**body),
    "POST /control/release": lambda fake, body: fake.release(),
    "POST /control/clear": lambda fake, body: fake.clear_faults(),
    "POST /control/options": lambda fake, body: fake.set_options(**body),
    **{endpoint: partial(on_futures, action) for endpoint, action in FUTURES_CONTROLS.items()},
}


def main() -> None:
    """Run the exchange until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A fake Binance on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", default=API_KEY)
    parser.add_argument("--api-secret", default=API_SECRET)
    arguments = parser.parse_args()
    with FakeBinance(arguments.api_key, arguments.api_secret, port=arguments.port) as fake:
        print(f"url {fake.base_url}\napi url {fake.api_url}\nfapi url {fake.fapi_url}", flush=True)
        print(f"key {fake.api_key}\nsecret {fake.api_secret}", flush=True)
        print(f"controls: {', '.join(sorted(CONTROLS))}\nfaults: {', '.join(KINDS)}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
