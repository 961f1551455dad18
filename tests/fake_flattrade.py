"""FlatTrade on loopback: PiConnectAPI's wire protocol, its login server, and an exchange behind it that decides later.

It takes only what is documented (https://pi.flattrade.in/docs) and refuses the rest; `stat: Ok` to an order only means
that it was written down. What the documentation leaves open is chosen here to be hard on the client.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from fake_wire import Connection, RawRequest, Reply, WireServer

UID = "FT0001"
APP_KEY = "app-key-of-the-tests-0123"
APP_SECRET = "app-secret-of-the-tests-0123"
IST = timezone(timedelta(hours=5, minutes=30))

Row = dict[str, Any]

ORDER_FIELDS = {"uid", "actid", "exch", "tsym", "qty", "prc", "prd", "trantype", "prctyp", "ret"}
MORE_ORDER_FIELDS = {"dscqty", "trgprc", "remarks", "ordersource", "amo", "mkt_protection"}
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "PlaceOrder": (ORDER_FIELDS, MORE_ORDER_FIELDS),
    "CancelOrder": ({"uid", "norenordno"}, {"ordersource"}),
    "SingleOrdHist": ({"uid", "norenordno"}, {"ordersource"}),
    "OrderBook": ({"uid"}, {"prd", "ordersource"}),
    "TradeBook": ({"uid", "actid"}, set()),
    "Limits": ({"uid", "actid"}, {"prd", "seg", "exch"}),
    "PositionBook": ({"uid", "actid"}, set()),
    "Holdings": ({"uid", "actid", "prd"}, set()),
    "SearchScrip": ({"uid", "stext"}, {"exch"}),
    "GetQuotes": ({"uid", "exch", "token"}, set()),
}
NO_DATA = 'Error Occurred : 5 "no data"'
EXPIRED = "Session Expired :  Invalid Session Key"
OPEN = ("OPEN", "PENDING", "TRIGGER_PENDING")

CIPLA = {"exch": "NSE", "token": "694", "tsym": "CIPLA-EQ", "pp": "2", "ls": "1", "ti": "0.10"}
SCRIPS: tuple[Row, ...] = (
    # The search finds it, too, and tells it first.
    {"exch": "NSE", "token": "9694", "tsym": "XCIPLA-EQ", "pp": "2", "ls": "1", "ti": "0.10"},
    CIPLA,
    {"exch": "BSE", "token": "500087", "tsym": "CIPLA", "pp": "2", "ls": "1", "ti": "0.05"},
    {"exch": "NSE", "token": "2031", "tsym": "M&M-EQ", "pp": "2", "ls": "1", "ti": "0.10"},
    {"exch": "NSE", "token": "16669", "tsym": "BAJAJ-AUTO-EQ", "pp": "2", "ls": "1", "ti": "1.00"},
    {"exch": "NSE", "token": "2885", "tsym": "RELIANCE-EQ", "pp": "2", "ls": "1", "ti": "0.10"},
    {"exch": "NSE", "token": "18069", "tsym": "REL100NAV-EQ", "pp": "2", "ls": "1", "ti": "0.01"},
    {"exch": "NSE", "token": "14366", "tsym": "IDEA-EQ", "pp": "2", "ls": "1", "ti": "0.01"},
)


class NotOk(Exception):
    """What the server answers with `stat: Not_Ok`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """For the next request to `endpoint`. `executed`: it had its effect before the trouble showed.

    Kinds: delay, close, reset, stall, html and json (with `status`), not_ok (with `text`), http_400, garbage.
    """

    kind: str
    endpoint: str = "PlaceOrder"
    executed: bool = False
    seconds: float = 0.0
    status: int = 502
    text: str = ""


@dataclass(slots=True)
class Placed:
    """One order that the server has written down; `rows` is its history, newest first, as SingleOrdHist tells it."""

    data: Row
    number: str
    decide_at: float
    rejected: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def status(self) -> str:
        return str(self.rows[0]["status"])


class FakeFlatTrade:
    """One account. `orders` are the PlaceOrder requests that were written down, in their order, each as it came."""

    def __init__(
        self,
        *,
        exchange_seconds: float = 0.005,
        order_limits: tuple[int, int] = (10, 40),
        question_limits: tuple[int, int] = (40, 200),
    ) -> None:
        """`exchange_seconds`: so long an order is PENDING. The limits: orders, and others, a second and a minute."""
        self.exchange_seconds = exchange_seconds
        self.cash = Decimal(100_000)
        self.orders: list[Row] = []
        self.calls: list[tuple[str, Row]] = []
        self.bodies: list[str] = []
        self.token = ""
        self.client = UID
        self.codes: set[str] = set()
        self.redirect_url = ""
        self.auth_key = "status"  # or "stat": the documentation and the wire disagree
        self.quotes: dict[str, Row] = {}
        self.holdings: dict[str, int] = {}
        self.error_status = 200
        self.open_for_orders = True
        self.keep_tag: Callable[[str], str] = str  # what becomes of an order's remarks
        self._scrips = [dict(row) for row in SCRIPS]
        self._placed: list[Placed] = []
        self._trades: list[Row] = []
        self._faults: list[Fault] = []
        self._rejections: list[str] = []
        self._most = {"orders": order_limits, "others": question_limits}
        self._times: dict[str, deque[float]] = {"orders": deque(), "others": deque()}
        self._lock = threading.RLock()
        self._number = 26112100000000
        self._wire = WireServer(self._handle)
        for row in self._scrips:
            self.set_price(row["tsym"], {"IDEA-EQ": "8.50"}.get(row["tsym"], "1500.00"), row["exch"])

    # --- for tests ------------------------------------------------------------------------------------------------

    def start(self) -> FakeFlatTrade:
        self._wire.listen()
        return self

    def stop(self) -> None:
        self._wire.stop()

    def stop_listening(self) -> None:
        self._wire.stop_listening()

    def listen(self) -> None:
        self._wire.listen()

    def __enter__(self) -> FakeFlatTrade:
        return self.start()

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        self.stop()

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self._wire.port}"

    @property
    def api_url(self) -> str:
        return f"{self.auth_url}/PiConnectAPI"

    def log_in(self) -> str:
        """As the browser does it: what it brings back is a code, good once."""
        code = secrets.token_hex(20)
        self.codes.add(code)
        return code

    def new_token(self) -> str:
        """As if the code had been exchanged already."""
        self.token = secrets.token_hex(16)
        return self.token

    def expire(self) -> None:
        """What happens at five in the morning."""
        self.token = ""

    def by_hand(self, side: str, quantity: int, price: str = "", tag: str = "") -> str:
        """The owner's own order of CIPLA, in FlatTrade's app: its number."""
        row = {"exch": "NSE", "tsym": "CIPLA-EQ", "uid": UID, "actid": UID, "prd": "C", "prctyp": "LMT", "ret": "DAY"}
        with self._lock:
            price = price or str(Decimal(self.quotes["NSE|694"]["sp1" if side == "B" else "bp1"]))
            data = row | {"qty": str(quantity), "prc": price, "trantype": side, "remarks": tag}
            number: str = self._placeorder(data)["norenordno"]
            self.orders.pop()
            return number

    def new_day(self) -> None:
        """The day's lists are empty; what was bought lies in the depository."""
        with self._lock:
            self._advance()
            for trade in self._trades:
                way = 1 if trade["trantype"] == "B" else -1
                self.holdings[trade["tsym"]] = self.holdings.get(trade["tsym"], 0) + way * int(trade["flqty"])
            self._placed.clear()
            self._trades.clear()

    def set_price(self, tsym: str, price: str, exch: str = "NSE", **more: str) -> None:
        """Last price; sellers one tick above and buyers one below, far circuit limits."""
        row = next(r for r in self._scrips if (r["exch"], r["tsym"]) == (exch, tsym))
        last, tick = Decimal(price), Decimal(row["ti"])
        with self._lock:
            self.quotes[f"{exch}|{row['token']}"] = {
                "lp": price, "sp1": str(last + tick), "bp1": str(last - tick),
                "uc": str(last * 2), "lc": str(last / 2 // tick * tick),
            } | more  # fmt: skip

    def fail_next(self, kind: str, endpoint: str = "PlaceOrder", **more: Any) -> None:
        self._faults.append(Fault(kind, endpoint, **more))

    def reject_next(self, reason: str) -> None:
        """The exchange will, after `stat: Ok`."""
        self._rejections.append(reason)

    def asked(self, endpoint: str) -> list[Row]:
        return [data for name, data in self.calls if name == endpoint]

    def status_of(self, number: str) -> str:
        with self._lock:
            self._advance()
            return next(order.status for order in self._placed if order.number == number)

    # --- HTTP -----------------------------------------------------------------------------------------------------

    def _handle(self, request: RawRequest, connection: Connection) -> bool:
        if request.path == "/" and request.method == "GET":
            return connection.send(self._login_page(request).encode())
        if request.path == "/trade/apitoken":
            return connection.send(self._token(request).encode())
        endpoint = request.path.removeprefix("/PiConnectAPI/")
        if request.method != "POST" or endpoint not in FIELDS or request.query:
            return connection.send(Reply(404, b"<html>not found</html>", content_type="text/html").encode())
        fault = self._fault_for(endpoint)
        if fault and fault.kind == "delay" and not fault.executed:
            time.sleep(fault.seconds)
        reply = None
        if fault is None or fault.executed or fault.kind in ("delay", "http_400"):
            reply = self._answer(endpoint, request.body, 400 if fault and fault.kind == "http_400" else 0)
        if fault and fault.kind == "delay" and fault.executed:
            time.sleep(fault.seconds)
        return self._send(connection, reply, fault)

    def _fault_for(self, endpoint: str) -> Fault | None:
        with self._lock:
            found = next((fault for fault in self._faults if fault.endpoint == endpoint), None)
            if found:
                self._faults.remove(found)
            return found

    def _send(self, connection: Connection, reply: Reply | None, fault: Fault | None) -> bool:
        if fault is None or fault.kind in ("delay", "http_400"):
            assert reply is not None
            return connection.send(reply.encode())
        if fault.kind == "stall":
            connection.wait_until_client_leaves(self._wire.stopping)
            return False
        if fault.kind == "reset":
            connection.reset()
            return False
        if fault.kind == "html":
            page = Reply(fault.status, b"<html>Bad Gateway</html>", content_type="text/html")
            return connection.send(page.encode())
        if fault.kind == "not_ok":
            return connection.send(_json({"stat": "Not_Ok", "emsg": fault.text}).encode())
        if fault.kind == "json":
            return connection.send(Reply(fault.status, fault.text.encode()).encode())
        if fault.kind == "garbage":
            return connection.send(Reply(200, fault.text.encode()).encode())
        return False  # close

    def _answer(self, endpoint: str, body: str, error_status: int) -> Reply:
        with self._lock:
            self.bodies.append(body)
            self._advance()
            try:
                return _json(self._judged(endpoint, body))
            except NotOk as exc:
                told = {"stat": "Not_Ok", "request_time": _now(), "emsg": str(exc)}
                return _json(told, error_status or self.error_status)

    def _judged(self, endpoint: str, body: str) -> Any:
        # As a form is taken apart: a bare & inside of the JSON ends it.
        parts = body.split("&")
        if len(parts) != 2 or not parts[0].startswith("jData=") or not parts[1].startswith("jKey="):
            raise NotOk('Error Occurred : 2 "invalid input"')
        try:
            data = json.loads(parts[0].removeprefix("jData="))
        except ValueError:
            raise NotOk('Error Occurred : 2 "invalid input"') from None
        if not isinstance(data, dict) or any(not isinstance(value, str) for value in data.values()):
            raise NotOk('Error Occurred : 2 "invalid input"')
        token = parts[1].removeprefix("jKey=")
        if not self.token or token != self.token or data.get("uid") != UID:
            raise NotOk(EXPIRED)
        self._count("orders" if endpoint == "PlaceOrder" else "others")
        self.calls.append((endpoint, data))
        needed, allowed = FIELDS[endpoint]
        missing = sorted(needed - data.keys())
        if missing:
            raise NotOk(f"Invalid Input : Missing {' or '.join(missing)}.")
        if data.keys() - needed - allowed:
            raise NotOk(f"Invalid Input : {', '.join(sorted(data.keys() - needed - allowed))}")
        if data.get("actid", UID) != UID:
            raise NotOk("Invalid Input : actid")
        return getattr(self, f"_{endpoint.lower()}")(data)

    def _count(self, kind: str) -> None:
        now, times = time.monotonic(), self._times[kind]
        times.append(now)
        while times and now - times[0] > 60:
            times.popleft()
        second = sum(1 for at in times if now - at < 1)
        for seen, most, word in zip((second, len(times)), self._most[kind], ("second", "minute"), strict=True):
            if seen > most:
                times.pop()
                raise NotOk(f"Invalid Input :  Order Recieved {seen} in a current {word} exceeds Limit {most} for user")

    # --- login ----------------------------------------------------------------------------------------------------

    def _login_page(self, request: RawRequest) -> Reply:
        """Password and second factor are one click here; then the browser is sent to the registered address."""
        if request.query != f"app_key={APP_KEY}":
            return Reply(400, b"<html>unknown key</html>", content_type="text/html")
        back = f"{self.redirect_url}?code={self.log_in()}&amp;client={UID}"
        head = '<title>FlatTrade</title><link rel="icon" href="data:,">'
        page = f'<!doctype html><html lang="en">{head}<a href="{back}">Sign in as {UID}</a></html>'
        return Reply(200, page.encode(), content_type="text/html")

    def _token(self, request: RawRequest) -> Reply:
        asked = json.loads(request.body)
        with self._lock:
            self.calls.append(("apitoken", asked))
            if fault := self._fault_for("apitoken"):
                return Reply(fault.status, fault.text.encode())
            code = asked.get("request_code", "")
            right = hashlib.sha256(f"{APP_KEY}{code}{APP_SECRET}".encode()).hexdigest()
            known = code in self.codes and set(asked) == {"api_key", "request_code", "api_secret"}
            if not known or asked["api_key"] != APP_KEY or asked["api_secret"] != right:
                return _json({"token": "", "client": "", self.auth_key: "Not_Ok", "emsg": ""})
            self.codes.discard(code)
            told = {"token": self.new_token(), "client": self.client, self.auth_key: "Ok", "emsg": ""}
            return _json(told)

    # --- orders ---------------------------------------------------------------------------------------------------

    def _placeorder(self, data: Row) -> Row:
        problem = _order_problem(data)
        if problem:
            raise NotOk(problem)
        data = data | {"tsym": unquote(data["tsym"])}
        self.orders.append(data)
        self._number += 1
        kept = data | {"remarks": self.keep_tag(data.get("remarks", ""))}
        order = Placed(kept, str(self._number), time.monotonic() + self.exchange_seconds)
        order.rejected = self._rejections.pop(0) if self._rejections else self._rejection(data)
        self._placed.append(order)
        self._tell(order, "PENDING", "NewAck")
        return {"request_time": _now(), "stat": "Ok", "norenordno": order.number}

    def _rejection(self, data: Row) -> str:
        """By the broker's risk checks or by the exchange."""
        scrip = self._scrip(data["exch"], data["tsym"])
        if scrip is None:
            return "RED:RULE:[Check symbol]: unknown"
        quote, price, quantity = self._quote(scrip), Decimal(data["prc"]), int(data["qty"])
        if price % Decimal(scrip["ti"]):
            return "EXCHANGE: price not in multiples of tick size"
        if not Decimal(quote["lc"]) <= price <= Decimal(quote["uc"]):
            return "EXCHANGE: price out of the day's range"
        if not self.open_for_orders:
            return "EXCHANGE: market is closed"
        if data["trantype"] == "B" and quantity * price > self.cash:
            return "RED:Margin Shortfall"
        if data["trantype"] == "S" and quantity > self._held(data["tsym"]):
            return "RED:Insufficient holdings"
        return ""

    def _advance(self) -> None:
        """What the exchange has decided by now."""
        now = time.monotonic()
        for order in self._placed:
            if order.status == "PENDING" and now >= order.decide_at:
                if order.rejected:
                    self._tell(order, "REJECTED", "Rejected", rejreason=order.rejected)
                else:
                    self._tell(order, "OPEN", "New", exchordid=str(7_000_000 + int(order.number[-6:])))
            if order.status == "OPEN":
                self._match(order)

    def _match(self, order: Placed) -> None:
        scrip = self._scrip(order.data["exch"], order.data["tsym"])
        assert scrip is not None
        quote, price = self._quote(scrip), Decimal(order.data["prc"])
        buys = order.data["trantype"] == "B"
        there = Decimal(quote["sp1" if buys else "bp1"])
        crosses = there and (price >= there if buys else price <= there)
        if crosses and order.data["prctyp"] == "LMT" and "fillshares" not in order.rows[0]:
            self._fill(order, there, int(quote.get("depth") or order.data["qty"]))
        if order.status == "OPEN" and order.data["ret"] == "IOC":
            self._tell(order, "CANCELED", "Canceled")

    def _fill(self, order: Placed, price: Decimal, depth: int) -> None:
        quantity = min(depth, int(order.data["qty"]))
        way = 1 if order.data["trantype"] == "B" else -1
        self.cash -= way * quantity * price
        told = {"norenordno": order.number, "exch": order.data["exch"], "tsym": order.data["tsym"], "prd": "C"}
        self._trades.append(
            {"stat": "Ok", "uid": UID, "actid": UID, "trantype": order.data["trantype"], "flid": str(len(self._trades)),
             "flqty": str(quantity), "flprc": str(price), "fltm": _now(), "remarks": order.data["remarks"]} | told
        )  # fmt: skip
        whole = quantity == int(order.data["qty"])
        status = "COMPLETE" if whole else "OPEN"
        self._tell(order, status, "Fill", fillshares=str(quantity), avgprc=str(price), flqty=str(quantity))

    def _tell(self, order: Placed, status: str, report: str, **more: str) -> None:
        before = order.rows[0] if order.rows else {}
        kept = {name: before[name] for name in ("fillshares", "avgprc", "exchordid") if name in before}
        row = {"stat": "Ok", "norenordno": order.number, **order.data, "status": status, "rpt": report}
        order.rows.insert(0, row | {"norentm": _now()} | kept | more)

    def _cancelorder(self, data: Row) -> Row:
        order = self._by_number(data["norenordno"])
        if order is None or order.status not in OPEN:
            raise NotOk("Rejected : ORA:Order not found to Cancel")
        self._tell(order, "CANCELED", "Canceled")
        return {"request_time": _now(), "stat": "Ok", "result": order.number}

    def _singleordhist(self, data: Row) -> list[Row]:
        order = self._by_number(data["norenordno"])
        if order is None:
            raise NotOk("Rejected : ORA:Order not found")
        return order.rows

    def _orderbook(self, data: Row) -> list[Row]:
        return _or_no_data([order.rows[0] for order in reversed(self._placed)])

    def _tradebook(self, data: Row) -> list[Row]:
        return _or_no_data(self._trades)

    def _by_number(self, number: str) -> Placed | None:
        return next((order for order in self._placed if order.number == number), None)

    # --- money and shares -------------------------------------------------------------------------------------------

    def _limits(self, data: Row) -> Row:
        told = {"cash": f"{self.cash:.2f}", "payin": "0.00", "payout": "0.00", "marginused": "0.00"}
        return {"request_time": _now(), "stat": "Ok"} | told

    def _positionbook(self, data: Row) -> list[Row]:
        net: dict[tuple[str, str], int] = {}
        for trade in self._trades:
            way = 1 if trade["trantype"] == "B" else -1
            key = (trade["exch"], trade["tsym"])
            net[key] = net.get(key, 0) + way * int(trade["flqty"])
        rows = [
            {"stat": "Ok", "uid": UID, "actid": UID, "exch": exch, "tsym": tsym, "prd": "C", "netqty": str(quantity)}
            for (exch, tsym), quantity in net.items()
        ]
        return _or_no_data(rows)

    def _holdings(self, data: Row) -> list[Row]:
        rows = [
            {"stat": "Ok", "prd": "C", "holdqty": str(quantity), "usedqty": "0", "upldprc": "100.00",
             "exch_tsym": [{"exch": "NSE", "token": "1", "tsym": tsym}]}
            for tsym, quantity in self.holdings.items()
        ]  # fmt: skip
        return _or_no_data(rows)

    def _held(self, tsym: str) -> int:
        bought = sum((1 if t["trantype"] == "B" else -1) * int(t["flqty"]) for t in self._trades if t["tsym"] == tsym)
        return self.holdings.get(tsym, 0) + bought

    # --- scrips -----------------------------------------------------------------------------------------------------

    def _searchscrip(self, data: Row) -> Row:
        text = unquote(data["stext"])
        found = [row for row in self._scrips if text in row["tsym"] and row["exch"] == data.get("exch", "NSE")]
        if not found:
            raise NotOk("No Data :  ")
        return {"stat": "Ok", "values": found}

    def _getquotes(self, data: Row) -> Row:
        scrip = next((r for r in self._scrips if (r["exch"], r["token"]) == (data["exch"], data["token"])), None)
        if scrip is None:
            raise NotOk(NO_DATA)
        return {"request_time": _now(), "stat": "Ok", "mult": "1"} | scrip | self._quote(scrip)

    def _scrip(self, exch: str, tsym: str) -> Row | None:
        return next((row for row in self._scrips if (row["exch"], row["tsym"]) == (exch, tsym)), None)

    def _quote(self, scrip: Row) -> Row:
        return self.quotes[f"{scrip['exch']}|{scrip['token']}"]


def _order_problem(data: Row) -> str:
    """What is refused before anything is written down."""
    if data["exch"] not in ("NSE", "BSE"):
        return "Invalid Input : exch"
    if data["prctyp"] not in ("LMT", "SL-LMT"):
        # V2 takes no market orders; a price of zero is how they used to come.
        return "Invalid Input : Order price cannot be zero" if _is_zero(data["prc"]) else "Invalid Input : prctyp"
    if _is_zero(data["prc"]):
        return "Invalid Input : Order price cannot be zero"
    if not re.fullmatch(r"[1-9][0-9]*", data["qty"]):
        return "Invalid Input : qty"
    if data["trantype"] not in ("B", "S") or data["ret"] not in ("DAY", "EOS", "IOC"):
        return "Invalid Input : trantype or ret"
    if data["prd"] not in ("C", "M", "I", "F"):
        return "Invalid Input : prd"
    if "amo" in data and data["amo"] != "Yes":
        return "Invalid AMO"
    if "trgprc" in data and data["prctyp"] != "SL-LMT":
        return "Invalid Input : trgprc"
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", data.get("remarks", "")):
        return "Invalid Input : remarks"
    return ""


def _is_zero(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is None or Decimal(text) == 0


def _or_no_data(rows: list[Row]) -> list[Row]:
    if not rows:
        raise NotOk(NO_DATA)
    return rows


def _now() -> str:
    return f"{datetime.now(UTC).astimezone(IST):%H:%M:%S %d-%m-%Y}"


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content).encode())
