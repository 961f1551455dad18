"""BingX's orders as parameters, its replies as our words, and what its codes mean: pure functions, no network.

https://bingx-api.github.io/docs-v3 (as of BingX-API/docs-v3 @d84f954, 2025-10-29): a reply is HTTP 200 with
{"code", "msg", "data"}, also for errors; `code` is 0 or says what went wrong, as a number or as text.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from broker import Balance
from models import (
    ZERO,
    Execution,
    Fee,
    HeldThere,
    Order,
    OrderStatus,
    OrderType,
    RestsThere,
    Side,
    SymbolRules,
    TradedThere,
    plain,
)
from reply_values import UNUSABLE, BadReply, signed, total, unsigned

# The play money of the demo, one to one to a dollar there. In a real account it is a toy that must not be counted.
PLAY_MONEY = "VST"
QUOTES = ("USDT", "USDC")
MOST_ORDERS_LISTED = 1000

# Judged and refused before anything was placed: authority, permission, funds, size, price, position, parameters. A code
# that is not listed leaves open what became of the order; codes changed before (2025-10-09) without a word in advance.
# The last three lines are from error-codes.md of BingX-API/api-ai-skills @d40bcc6 (2026-04-21), BingX's own, too.
REFUSED_CODES = frozenset(
    {100001, 100004, 100400, 100412, 100413, 100414, 100419, 100421, 100440, 100490, 100202}
    | {101204, 101205, 101209, 101211, 101212, 101215, 101290, 101400, 101414, 101415, 101419, 101424, 101460}
    | {101514, 101515, 109400, 110400, 110411, 110412, 110413, 110414, 110425, 80013, 80014, 80017, 80020}
    | {100441, 101202, 101206, 101210, 101222, 101253, 101402, 101413, 101429, 101434, 101461, 101479, 101483}
    | {101484, 101485, 109417, 109420, 109425, 110203, 110206, 110280, 110287, 110402, 110422, 110424, 110426}
    | {112414}
)
# Of 101209 the documentation says two things: a position that is too large, and an order that came twice. And 101400 is
# for sizes, prices, suspended pairs and for an id that was used before: then the order is there.
DUPLICATE_TEXT = re.compile(
    r"only (be )?(allowed to be )?submitted once|repeated|duplicat|already (been )?used", re.IGNORECASE
)
CLOCK_TEXT = re.compile(r"timestamp", re.IGNORECASE)
CLOCK_CODES = frozenset({100421, 109400, 80014})
RATE_CODES = frozenset({100410, 109429})
MODE_CODE, MODE_TEXT = 109400, re.compile(r"in the (one-way|hedge) mode", re.IGNORECASE)
# Of a stop that closes the position and names no quantity, as the documentation wants it. Told by others in 2026:
# https://github.com/ccxt/ccxt/pull/29106
QUANTITY_TEXT = re.compile(r"quantity or stopPrice is must", re.IGNORECASE)
# A reason to look at the position, and what is to be told of it.
NOTHING_TO_CLOSE = "there is nothing left to close"
LESS_TO_CLOSE = "less is held there, or free, than this closes"
NOTHING_TO_CLOSE_CODES: Mapping[int, str] = {
    101205: NOTHING_TO_CLOSE, 109420: NOTHING_TO_CLOSE, 80017: NOTHING_TO_CLOSE,
    101290: LESS_TO_CLOSE, 110203: LESS_TO_CLOSE,
}  # fmt: skip
NO_SUCH_ORDER_CODES = frozenset({80016, 109421})
NO_SUCH_ORDER_TEXT = re.compile(r"order (does )?not? ?exist|order doesn'?t exist", re.IGNORECASE)
OVER_TEXT = re.compile(r"is FILLED or CANCELL?ED already", re.IGNORECASE)
# It did not work out there: whatever the text, nothing is known.
BUSY_CODES = frozenset({80001, 80012, 80019, 100500, 101500, 109500})
NO_SUCH_SYMBOL_TEXT = re.compile(r"symbol.*(not exist|invalid|offline)|does not exist|not available", re.IGNORECASE)
FREE_AGAIN_AT = re.compile(r"after(?: time:)? (\d{13})\b")

STATUSES = {
    "NEW": OrderStatus.NEW,
    "PENDING": OrderStatus.NEW,
    "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
    "FILLED": OrderStatus.FILLED,
    "CANCELED": OrderStatus.CANCELED,
    "CANCELLED": OrderStatus.CANCELED,
    "FAILED": OrderStatus.REJECTED,
    "EXPIRED": OrderStatus.EXPIRED,
}
CONDITIONAL: Mapping[OrderType, str] = {OrderType.STOP: "STOP_MARKET", OrderType.TAKE_PROFIT: "TAKE_PROFIT_MARKET"}
TIMES_IN_FORCE = {"GTX": "PostOnly"}


class CannotSend(Exception):
    """BingX has no such order; the text says what is wrong with it."""


# What its owner can do about a key that is refused: https://bingx-api.github.io/docs-v3
KEY_ADVICE = {
    100001: ": does the API secret belong to the key?",
    100413: ": is the API key what BingX gave?",
    100419: ": is this machine's address among those that the key is good for?",
}


class BingxError(Exception):
    """BingX's own word that something is not so: a code, its text and the HTTP status; `str` says what to do, too."""

    def __init__(self, code: int, message: str, status: int = 200) -> None:
        super().__init__(f"{message[:200]} ({code}){KEY_ADVICE.get(code, '')}")
        self.code, self.message, self.status = code, message, status


# --- the wire -------------------------------------------------------------------------------------------------------


def query_of(parameters: Mapping[str, str], secret: str | None = None) -> str:
    """The query string; signed over the same string before it is encoded, with the names in order.

    https://bingx-api.github.io/docs-v3/#/en/Quick%20Start/Signature%20Authentication
    """
    pairs = sorted(parameters.items())
    encoded = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    if secret is None:
        return encoded
    plain_text = "&".join(f"{name}={value}" for name, value in pairs)
    return f"{encoded}&signature={hmac.new(secret.encode(), plain_text.encode(), hashlib.sha256).hexdigest()}"


def data_of(body: bytes, status: int) -> Any:
    """What a reply carries. Raises BingxError, or BadReply where it is no reply of BingX's."""
    try:
        # Numbers as they are written: 0.0001 is no binary fraction, and an order's id has 19 digits.
        reply = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
        code = int(reply["code"])
    except (*UNUSABLE, RecursionError) as exc:
        raise BadReply(f"HTTP {status} without a usable code") from exc
    if code or not 200 <= status < 300:
        raise BingxError(code, str(reply.get("msg", "")), status)
    return reply.get("data")


def _no_number(text: str) -> Any:
    raise BadReply(f"{text} is no number")


def free_again_ms(message: str) -> int | None:
    """When the server's clock allows calls again, in ms: "... will be unblocked after 1727193814249"."""
    found = FREE_AGAIN_AT.search(message)
    return int(found.group(1)) if found else None


def there(symbol: str) -> str:
    """BTCUSDT as BingX writes it, BTC-USDT. Raises CannotSend: any other currency is not traded here."""
    for currency in QUOTES:
        base = symbol.removesuffix(currency)
        if base and base != symbol:
            return f"{base}-{currency}"
    raise CannotSend(f"{symbol} is not quoted in {' or '.join(QUOTES)}")


def here(symbol: object) -> str:
    return str(symbol).replace("-", "")


# --- orders as parameters -------------------------------------------------------------------------------------------


def swap_parameters(order: Order, *, hedge_mode: bool) -> dict[str, str]:
    """https://bingx-api.github.io/docs-v3 Swap, Trades Endpoints, Place order."""
    parameters = {
        "symbol": there(order.symbol),
        "side": order.side.value,
        "positionSide": order.position_side if hedge_mode else "BOTH",
    }
    if order.type in CONDITIONAL:
        return parameters | _conditional(order)
    if not hedge_mode and not order.is_entry:
        parameters["reduceOnly"] = "true"  # hedge mode refuses the word: there the side says it
    return parameters | {"clientOrderID": order.client_order_id, "quantity": _quantity(order)} | _kind(order)


def _conditional(order: Order) -> dict[str, str]:
    """Closes the whole position, whatever that is by then. It takes no id of ours: only LIMIT and MARKET do."""
    if order.is_entry or order.quantity is not None:
        raise CannotSend(f"{order.type.value} orders here close a whole position, nothing else")
    if order.stop_price is None:
        raise CannotSend(f"{order.type.value} needs a price")
    return {
        "type": CONDITIONAL[order.type],
        "stopPrice": plain(order.stop_price),
        "closePosition": "true",
        "workingType": "MARK_PRICE",
    }


def spot_parameters(order: Order) -> dict[str, str]:
    """https://bingx-api.github.io/docs-v3 Spot, Trades Endpoints, Place order."""
    size = {"quoteOrderQty": plain(order.amount)} if order.amount is not None else {"quantity": _quantity(order)}
    names = {"symbol": there(order.symbol), "side": order.side.value, "newClientOrderId": order.client_order_id}
    return names | size | _kind(order)


def _kind(order: Order) -> dict[str, str]:
    if order.type is OrderType.MARKET:
        return {"type": "MARKET"}
    if order.type is not OrderType.LIMIT or order.price is None:
        raise CannotSend(f"{order.type.value} orders are not sent to BingX")
    parameters = {"type": "LIMIT", "price": plain(order.price)}
    if order.time_in_force not in (None, "GTC"):
        parameters["timeInForce"] = TIMES_IN_FORCE.get(order.time_in_force, order.time_in_force)
    return parameters


def _quantity(order: Order) -> str:
    if order.quantity is None:
        raise CannotSend("a quantity is needed, not an amount")
    return plain(order.quantity)


# --- replies about orders -------------------------------------------------------------------------------------------


def order_in(data: Any) -> Mapping[str, Any]:
    """The order that a reply is about: the documentation has it under `order`, live it was flat."""
    row = data["order"] if isinstance(data.get("order"), dict) else data
    if not isinstance(row, dict) or not str(row.get("orderId") or "").isdecimal():
        raise BadReply("no order id")
    return row


def orders_in(data: Any) -> list[Mapping[str, Any]]:
    return rows_in(data["orders"])


def rows_in(data: Any) -> list[Mapping[str, Any]]:
    """An empty list may be written as null; an answer without either says nothing."""
    if data is None:
        return []
    if not isinstance(data, list):
        raise BadReply("no list")
    return data


def client_id_in(row: Mapping[str, Any]) -> str:
    """As BingX echoes it, under four names."""
    names = ("clientOrderId", "clientOrderID", "origClientOrderId", "newClientOrderId")
    return next((str(row[name]) for name in names if row.get(name)), "")


def check_is_ours(order: Order, row: Mapping[str, Any]) -> None:
    """BingX makes small letters of our ids; the documentation shows them blotted out (`l*****e`), or not at all."""
    told = client_id_in(row).lower()
    if row.get("symbol") != there(order.symbol) or row.get("side") != order.side.value:
        raise BadReply("symbol or side differs")
    if told and "*" not in told and told != order.client_order_id.lower():
        raise BadReply("client order id differs")


def is_the_one(order: Order, row: Mapping[str, Any], *, hedge_mode: bool) -> bool:
    """Whether a conditional order does exactly what ours does: it carries no id of ours to know it by."""
    side = order.position_side if hedge_mode else "BOTH"
    told = (row.get("symbol"), row.get("type"), row.get("side"))
    if told != (there(order.symbol), CONDITIONAL[order.type], order.side.value):
        return False
    # In one-way mode some lists call the position by its direction.
    same_position = row.get("positionSide") in (side, order.position_side)
    return same_position and order.stop_price is not None and signed(row, "stopPrice") == order.stop_price


def has_traded(row: Mapping[str, Any]) -> bool:
    """Kinds of orders that we never make may tell no quantity while they have none."""
    return bool(row.get("executedQty")) and unsigned(row, "executedQty") > 0


def is_only_triggered(row: Mapping[str, Any]) -> bool:
    """A stop order that is done and has executed nothing itself: another order did, which names it."""
    return row.get("type") in CONDITIONAL.values() and row.get("status") == "FILLED" and not has_traded(row)


def status_in(row: Mapping[str, Any]) -> OrderStatus:
    status = STATUSES.get(str(row.get("status")))
    if status is None:
        raise BadReply(f"status {row.get('status')!r}")
    executed = unsigned(row, "executedQty")
    if status is OrderStatus.NEW and executed:
        return OrderStatus.PARTIALLY_FILLED
    return OrderStatus.CANCELED if status is OrderStatus.REJECTED and executed else status


def swap_execution(row: Mapping[str, Any], margin_asset: str) -> Execution:
    """By the average price: `cumQuote` is rounded to whole dollars. A fee that was paid is negative."""
    executed, status = unsigned(row, "executedQty"), status_in(row)
    price = unsigned(row, "avgPrice") if executed else ZERO
    if executed and not price:
        raise BadReply("executed without a price")
    fee = -signed(row, "commission") if executed else ZERO
    return Execution(
        status, str(row["orderId"]), executed, executed * price, _fees(margin_asset, fee), _note(status, row)
    )


def spot_execution(row: Mapping[str, Any], trades: Sequence[Mapping[str, Any]]) -> Execution:
    """With the fees by its trades, which must add up: what was taken in coins is not there to be sold."""
    executed, status = unsigned(row, "executedQty"), status_in(row)
    if total(trades, "qty") != executed:
        raise BadReply("its trades are not all listed yet")
    fees: dict[str, Decimal] = {}
    for trade in trades:
        asset = str(trade["commissionAsset"])
        fees[asset] = fees.get(asset, ZERO) + abs(signed(trade, "commission"))
    paid = tuple(fee for asset, amount in fees.items() for fee in _fees(asset, amount))
    quote_sum = unsigned(row, "cummulativeQuoteQty")
    return Execution(status, str(row["orderId"]), executed, quote_sum, paid, _note(status, row))


def _fees(asset: str, amount: Decimal) -> tuple[Fee, ...]:
    return (Fee(asset, amount),) if amount else ()


def _note(status: OrderStatus, row: Mapping[str, Any]) -> str:
    executed = unsigned(row, "executedQty")
    return f"{plain(executed)} executed before it ended" if status is OrderStatus.EXPIRED and executed else ""


def traded_in(row: Mapping[str, Any], margin_asset: str) -> TradedThere:
    """What an order of the swap's history executed, whatever kind it is and however it ended."""
    done = swap_execution({**row, "status": "FILLED"}, margin_asset)
    side = str(row.get("positionSide", ""))
    return TradedThere(
        symbol=here(row["symbol"]),
        exchange_order_id=done.exchange_order_id,
        side=Side(row["side"]),
        position_side=side if side in ("LONG", "SHORT") else "",
        quantity=done.executed_quantity,
        quote=done.executed_quote,
        fees=done.fees,
        last_at=moment(row["updateTime"]),
    )


def spot_traded_in(symbol: str, trades: Sequence[Mapping[str, Any]]) -> TradedThere:
    """What the trades of one order come to."""
    first = trades[0]
    fees: dict[str, Decimal] = {}
    for trade in trades:
        fees[str(trade["commissionAsset"])] = fees.get(str(trade["commissionAsset"]), ZERO) + abs(
            signed(trade, "commission")
        )
    return TradedThere(
        symbol=symbol,
        exchange_order_id=str(first["orderId"]),
        side=Side.BUY if first["isBuyer"] else Side.SELL,
        position_side="",
        quantity=total(trades, "qty"),
        quote=total(trades, "quoteQty"),
        fees=tuple(Fee(asset, amount) for asset, amount in fees.items() if amount),
        last_at=max(moment(trade["time"]) for trade in trades),
    )


def rests_in(row: Mapping[str, Any]) -> RestsThere:
    conditional = row.get("type") in CONDITIONAL.values()
    return RestsThere(here(row["symbol"]), client_id_in(row), conditional)


def moment(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


# --- replies about the account and the market -----------------------------------------------------------------------


def swap_balances(rows: Sequence[Mapping[str, Any]], *, demo: bool) -> dict[str, Balance]:
    """Free is what new positions may use. Unused assets are listed with empty texts."""
    found: dict[str, Balance] = {}
    for row in rows:
        asset = str(row["asset"])
        if row["balance"] == "" or (asset == PLAY_MONEY and not demo):
            continue
        held, free = max(signed(row, "balance"), ZERO), max(signed(row, "availableMargin"), ZERO)
        found[asset] = Balance(free, max(held - free, ZERO))
    return {asset: balance for asset, balance in found.items() if balance != Balance()}


def spot_balances(data: Any) -> dict[str, Balance]:
    rows = rows_in(data["balances"])
    found = {str(row["asset"]): Balance(unsigned(row, "free"), unsigned(row, "locked")) for row in rows}
    return {asset: each for asset, each in found.items() if each != Balance() and asset != PLAY_MONEY}


def positions_in(rows: Sequence[Mapping[str, Any]]) -> list[HeldThere]:
    """One for each symbol and side; where margins are kept apart there are several rows, which belong together."""
    found: dict[tuple[str, str], HeldThere] = {}
    for row in rows:
        amount, side = signed(row, "positionAmt"), str(row["positionSide"])
        if side == "BOTH":
            side = "LONG" if amount > 0 else "SHORT"
        if side not in ("LONG", "SHORT"):
            raise BadReply(f"positionSide {side!r}")
        if not amount:
            continue
        symbol, entry = here(row["symbol"]), unsigned(row, "avgPrice")
        before = found.get((symbol, side), HeldThere(symbol, side, ZERO, ZERO))
        quantity = before.quantity + abs(amount)
        price = (before.quantity * before.entry_price + abs(amount) * entry) / quantity
        found[symbol, side] = HeldThere(symbol, side, quantity, price)
    return list(found.values())


def swap_rules(row: Mapping[str, Any], *, demo: bool) -> SymbolRules:
    """https://bingx-api.github.io/docs-v3 Swap, Market Data, contracts: precisions are numbers of decimals.

    Where only opening is off (status 25) a way out must stay open: entries are then refused by BingX itself.
    """
    symbol = here(row["symbol"])
    base, _, currency = str(row["symbol"]).rpartition("-")
    can_close = row.get("status") in (1, 25) and str(row.get("apiStateClose", "true")).lower() == "true"
    return SymbolRules(
        symbol=symbol,
        base_asset=base,
        quote_asset=PLAY_MONEY if demo else str(row.get("currency") or currency),
        quantity_step=_grid(row["quantityPrecision"]),
        min_quantity=unsigned(row, "tradeMinQuantity"),
        price_tick=_grid(row["pricePrecision"]),
        min_notional=unsigned(row, "tradeMinUSDT"),
        quote_amount_allowed=False,
        order_types=frozenset({"MARKET", "LIMIT", *(kind.value for kind in CONDITIONAL)}),
        trading=can_close,
    )


def spot_rules(row: Mapping[str, Any]) -> SymbolRules:
    """Without `minQty`, which BingX says itself is not what counts: `minNotional` is."""
    base, _, currency = str(row["symbol"]).rpartition("-")
    return SymbolRules(
        symbol=here(row["symbol"]),
        base_asset=base,
        quote_asset=currency,
        quantity_step=unsigned(row, "stepSize"),
        min_quantity=ZERO,
        price_tick=unsigned(row, "tickSize"),
        min_notional=unsigned(row, "minNotional"),
        max_notional=unsigned(row, "maxNotional"),
        quote_amount_allowed=True,
        trading=row.get("status") == 1,
    )


def _grid(decimals: Any) -> Decimal:
    if not isinstance(decimals, int) or not 0 <= decimals <= 18:
        raise BadReply(f"{decimals!r} is no number of decimals")
    return Decimal(1).scaleb(-decimals)


def swap_prices(data: Any, symbols: Sequence[str]) -> dict[str, Decimal]:
    """Of these only: among all contracts some have no price yet, or no more."""
    rows = data if isinstance(data, list) else [data]
    found = {here(row["symbol"]): row for row in rows}
    return {symbol: _price(found[symbol]) for symbol in symbols if symbol in found}


def spot_price(data: Any, wanted: str) -> Decimal:
    """[{"symbol": "BTC_USDT", "trades": [{"price": …}]}]"""
    row = next(row for row in rows_in(data) if row["symbol"] == wanted.replace("-", "_"))
    return _price(row["trades"][0])


def _price(row: Mapping[str, Any]) -> Decimal:
    price = unsigned(row, "price")
    if not price:
        raise BadReply("a price of 0")
    return price
