"""Futures orders as Binance's parameters, and its replies as our words: pure functions, no network.

https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/New-Order and .../New-Algo-Order
Codes: https://developers.binance.com/docs/derivatives/usds-margined-futures/error-code
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from binance_link import STATUSES, CannotSend, fees_in, lots_in, number_in
from broker import Balance
from models import (
    PROTECTIVE,
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
    plain,
    round_down,
)
from reply_values import BadReply, signed, total, unsigned

# Judged and refused before they could reach the engine. A code that is not listed leaves open what became of it.
REFUSED_CODES = frozenset(
    {-1002, -1014, -1016, -1020, -1022, -1108, -1111, -1112, -1121, -1128, -1130, -1136, -2007, -2010}
    | {-4015, -4016, -4020, -4023, -4024, -4031, -4045, -4060, -4061, -4062, -4087, -4088, -4109}
    | {-4118, -4120, -4130, -4131, -4135, -4137, -4138, -4139, -4140, -4141, -4142, -4144, -4164, -4183, -4184}
    | {-4189, -4192, -4210, -4211, -4400, -4401, -4402, -4509, -5021, -5022, -5037, -5038, -5039, -5040, -5041}
    | set(range(-1106, -1099))
    | set(range(-1119, -1113))
    | set(range(-2028, -2013))
    | set(range(-4007, -4000))
    | set(range(-4014, -4012))
    | set(range(-4107, -4104))
)
CLOCK_CODES = frozenset({-1021, -5028})  # at the door, and at the matching engine
NOT_PLACED_TEXTS = ("Service Unavailable.", "Internal error; unable to process your request. Please try again.")
THROTTLED_CODE, THROTTLED_TEXT = -1008, "Request throttled by system-level protection."
MODE_CODE, NOT_REQUIRED_CODE = -4061, -1106
MODE_WORDS = ("reduceonly", "positionside")
NOTHING_TO_REDUCE_CODE = -2022
POSITION_NOT_SEEN_YET_CODE = -4509

KINDS: Mapping[OrderType, str] = {
    OrderType.STOP: "STOP_MARKET",
    OrderType.TAKE_PROFIT: "TAKE_PROFIT_MARKET",
    OrderType.TRAILING_STOP: "TRAILING_STOP_MARKET",
}
CALLBACK_STEP = Decimal("0.1")
TRADED_CONTRACTS = ("PERPETUAL", "TRADIFI_PERPETUAL")

WAITS = frozenset({"NEW", "TRIGGERING"})
# What became of a conditional order that has become no real one.
ENDED_UNTRIGGERED: Mapping[str, tuple[OrderStatus, str]] = {
    "CANCELED": (OrderStatus.CANCELED, ""),
    "EXPIRED": (OrderStatus.EXPIRED, "expired untriggered, as when the position it was to close is gone"),
    "REJECTED": (OrderStatus.REJECTED, "rejected when it was triggered, as when nothing was left to close"),
}


# --- orders as parameters -------------------------------------------------------------------------------------------


def order_parameters(order: Order, *, hedge_mode: bool) -> dict[str, str]:
    """Of a market or limit order. Numbers as plain text: the library would send `1E-7` for a small Decimal."""
    if order.type not in (OrderType.MARKET, OrderType.LIMIT):
        raise CannotSend(f"{order.type.value} orders are not sent to futures")
    parameters = {
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.type.value,
        "quantity": _quantity(order),
        "newClientOrderId": order.client_order_id,
        "newOrderRespType": "RESULT",
        **_position(order, hedge_mode=hedge_mode),
    }
    if order.type is OrderType.LIMIT:
        parameters |= {"price": _price(order, order.price), "timeInForce": order.time_in_force or "GTC"}
    return parameters


def conditional_parameters(order: Order, *, hedge_mode: bool) -> dict[str, str]:
    """Without a quantity it closes the whole position, whatever that is when it is triggered."""
    parameters = {
        "algoType": "CONDITIONAL",
        "symbol": order.symbol,
        "side": order.side.value,
        "type": KINDS[order.type],
        "clientAlgoId": order.client_order_id,
        "workingType": "MARK_PRICE",
        **_position(order, hedge_mode=hedge_mode),
    }
    if order.type is OrderType.TRAILING_STOP:
        return parameters | {"callbackRate": _callback_rate(order), "quantity": _quantity(order)}
    parameters["triggerPrice"] = _price(order, order.stop_price)
    if order.quantity is not None:
        return parameters | {"quantity": _quantity(order)}
    if order.is_entry:
        raise CannotSend("an entry needs a quantity")
    # closePosition says already that it only reduces, and Binance refuses to hear it twice.
    parameters.pop("reduceOnly", None)
    return parameters | {"closePosition": "true"}


def _position(order: Order, *, hedge_mode: bool) -> dict[str, str]:
    """In hedge mode the side of the position says what an order reduces, and reduceOnly is refused."""
    if hedge_mode:
        return {"positionSide": order.position_side}
    return {} if order.is_entry else {"reduceOnly": "true"}


def _quantity(order: Order) -> str:
    if order.quantity is None:
        raise CannotSend("futures take a quantity, not an amount")
    return plain(order.quantity)


def _callback_rate(order: Order) -> str:
    if order.trailing_percent is None:
        raise CannotSend("a trailing stop needs its distance in percent")
    # Binance counts in tenths of a percent; the nearer stop is the one that risks less.
    return plain(round_down(order.trailing_percent, CALLBACK_STEP))


def _price(order: Order, wanted: Decimal | None) -> str:
    if wanted is None:
        raise CannotSend(f"{order.type.value} needs a price")
    return plain(on_grid(wanted, order.side, order.rules))


def on_grid(price: Decimal, side: Side, rules: SymbolRules) -> Decimal:
    """Binance counts ticks from the smallest price, which need not be a whole number of them itself.

    A buy is never dearer for it and a sale never cheaper; a stop is at most a tick early, never late.
    https://developers.binance.com/docs/derivatives/usds-margined-futures/common-definition#filters
    """
    if rules.price_tick <= 0 or price < rules.min_price:
        return price  # too small a price is for Binance to refuse, not for us to raise
    ticks, rest = divmod(price - rules.min_price, rules.price_tick)
    return rules.min_price + (ticks + (1 if rest and side is Side.SELL else 0)) * rules.price_tick


# --- replies about orders -------------------------------------------------------------------------------------------


def status_in(raw: Mapping[str, Any]) -> OrderStatus:
    status = STATUSES.get(str(raw.get("status")))
    if status is None or not raw.get("orderId"):
        raise BadReply(f"status {raw.get('status')!r}")
    return OrderStatus.PARTIALLY_FILLED if status is OrderStatus.NEW and unsigned(raw, "executedQty") else status


def check_is_ours(order: Order, raw: Mapping[str, Any], id_name: str = "clientOrderId") -> None:
    if raw.get("symbol") != order.symbol or raw.get(id_name) != order.client_order_id:
        raise BadReply("symbol or client order id differs")


def execution(raw: Mapping[str, Any], quote: Decimal, fees: tuple[Fee, ...]) -> Execution:
    """Of an order as it stands; replies to orders name neither price nor fees, those come from its trades."""
    status, executed = status_in(raw), unsigned(raw, "executedQty")
    note = f"{plain(executed)} executed before it ended" if status is OrderStatus.EXPIRED else ""
    return Execution(status, str(raw["orderId"]), executed, quote, fees, note)


def sums_of(trades: Iterable[Mapping[str, Any]], executed: Decimal) -> tuple[Decimal, tuple[Fee, ...]]:
    """Quote and fees, once the trades are all there."""
    trades = list(trades)
    if total(trades, "qty") != executed:
        raise BadReply("its trades are not all listed yet")
    return total(trades, "quoteQty"), fees_in(trades)


def waiting(raw: Mapping[str, Any]) -> Execution:
    """A conditional order, by an id that cannot be taken for that of a real order."""
    return Execution(OrderStatus.NEW, algo_name(raw))


def algo_name(raw: Mapping[str, Any]) -> str:
    if not raw.get("algoId"):
        raise BadReply("no algoId")
    return f"algo-{raw['algoId']}"


def became(raw: Mapping[str, Any]) -> str:
    """The id of the real order that a conditional one has become; empty as long as there is none."""
    actual = str(raw.get("actualOrderId") or "")
    return "" if actual == "0" else actual


def cancelled_untriggered(order: Order, raw: Mapping[str, Any]) -> Execution:
    """The reply to a cancelled conditional order: it names neither symbol nor state."""
    if raw.get("clientAlgoId") != order.client_order_id or str(raw.get("code")) != "200":
        raise BadReply("not the cancelled order")
    return Execution(OrderStatus.CANCELED, algo_name(raw))


def untriggered(raw: Mapping[str, Any]) -> Execution:
    """A conditional order that has become no real order."""
    status = str(raw.get("algoStatus"))
    if status in WAITS:
        return waiting(raw)
    ending, note = ENDED_UNTRIGGERED[status]  # any other has become an order, and this one has none
    return Execution(ending, algo_name(raw), note=note)


# --- replies about the account --------------------------------------------------------------------------------------


def balance_in(row: Mapping[str, Any]) -> Balance:
    """Open profit may make more available than is in the wallet, and a wallet may be a little short of zero."""
    wallet, available = max(signed(row, "balance"), ZERO), max(signed(row, "availableBalance"), ZERO)
    return Balance(available, max(wallet - available, ZERO), wallet)


def held_in(row: Mapping[str, Any]) -> HeldThere:
    """In one-way mode the sign is the side."""
    amount = signed(row, "positionAmt")
    side = str(row["positionSide"])
    if side == "BOTH":
        side = "LONG" if amount > 0 else "SHORT"
    if side not in ("LONG", "SHORT"):
        raise BadReply(f"positionSide {side!r}")
    return HeldThere(str(row["symbol"]), side, abs(amount), unsigned(row, "entryPrice"))


def rests_in(row: Mapping[str, Any]) -> RestsThere:
    conditional = "clientAlgoId" in row
    return RestsThere(str(row["symbol"]), str(row["clientAlgoId" if conditional else "clientOrderId"]), conditional)


# --- rules ----------------------------------------------------------------------------------------------------------


def rules_in(row: Mapping[str, Any]) -> SymbolRules:
    """Filters, never the precisions: https://developers.binance.com/docs/derivatives/usds-margined-futures/
    common-definition#filters. A missing filter is no rule."""
    filters: dict[str, Mapping[str, Any]] = {each["filterType"]: each for each in row["filters"]}
    return SymbolRules(
        symbol=row["symbol"],
        base_asset=row["baseAsset"],
        quote_asset=row["quoteAsset"],
        **lots_in(filters),
        min_notional=number_in(filters.get("MIN_NOTIONAL", {}), "notional"),
        quote_amount_allowed=False,
        order_types=_order_types(row),
        trading=row.get("status") == "TRADING" and row.get("contractType") in TRADED_CONTRACTS,
    )


def _order_types(row: Mapping[str, Any]) -> frozenset[str]:
    """In our words: what Binance calls STOP is a limit order for us, so its own words stay here."""
    offered = frozenset(row.get("orderTypes", ()))
    conditional = {kind.value for kind in PROTECTIVE if KINDS[kind] in offered}
    return (offered & {"MARKET", "LIMIT"}) | conditional
