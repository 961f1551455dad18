"""From the parameters of a futures request to the order it asks for, or the refusal of what does not fit together.

https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api/New-Order and .../New-Algo-Order.
Unlike spot, futures name a missing parameter in lower case ("'timeinforce' was not sent"), as seen live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from fake_algo import NewAlgo
from fake_futures_rules import CONDITIONAL, NewFuturesOrder, refused
from fake_rest import DECIMAL, IN_PYTHON, INTEGER, LEGAL, new_client_id

CLIENT_ID = r"^[\.A-Z\:/a-z0-9_-]{1,36}$"
IN_PYTHON[CLIENT_ID] = r"^[.A-Z:/a-z0-9_-]+$"  # the length has a code of its own

FUTURES_LEGAL = {
    **LEGAL,
    **dict.fromkeys(("triggerPrice", "activatePrice", "activationPrice", "callbackRate"), DECIMAL),
    **dict.fromkeys(("newClientOrderId", "origClientOrderId", "clientAlgoId"), CLIENT_ID),
    **dict.fromkeys(("algoId", "leverage", "goodTillDate", "page"), INTEGER),
}

# What a type needs beyond symbol, side and type, and what it may have; all else is "not required".
NEEDS: Mapping[str, tuple[str, ...]] = {
    "LIMIT": ("timeInForce", "quantity", "price"),
    "MARKET": ("quantity",),
    "STOP": ("quantity", "price", "triggerPrice"),
    "TAKE_PROFIT": ("quantity", "price", "triggerPrice"),
    "STOP_MARKET": ("triggerPrice",),
    "TAKE_PROFIT_MARKET": ("triggerPrice",),
    "TRAILING_STOP_MARKET": ("quantity", "callbackRate"),
}
MAY_HAVE: Mapping[str, tuple[str, ...]] = {
    "STOP": ("timeInForce", "workingType", "priceProtect"),
    "TAKE_PROFIT": ("timeInForce", "workingType", "priceProtect"),
    "STOP_MARKET": ("timeInForce", "quantity", "workingType", "priceProtect", "closePosition"),
    "TAKE_PROFIT_MARKET": ("timeInForce", "quantity", "workingType", "priceProtect", "closePosition"),
    "TRAILING_STOP_MARKET": ("timeInForce", "workingType", "activatePrice"),
}
BY_TYPE = ("timeInForce", "quantity", "price", "stopPrice", "triggerPrice", "closePosition", "activationPrice",
           "activatePrice", "callbackRate", "workingType", "priceProtect")  # fmt: skip
STP_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")


def choice(params: Mapping[str, str], name: str, allowed: Iterable[str], default: str, code: int = -1130) -> str:
    value = params.get(name, default)
    if value not in allowed:
        raise refused(code, name) if code == -1130 else refused(code, text=0)
    return value


def flag(params: Mapping[str, str], name: str) -> bool:
    """Sent as text; "True" is not "true"."""
    return choice(params, name, ("true", "false"), "false") == "true"


def number(params: Mapping[str, str], name: str) -> Decimal:
    return Decimal(params.get(name, "0"))


def client_id(params: Mapping[str, str], name: str) -> str:
    wanted = params.get(name) or new_client_id()
    if len(wanted) > 36:
        raise refused(-4015, text=1)
    return wanted


def position_side(params: Mapping[str, str], *, hedge_mode: bool) -> str:
    """BOTH or nothing in one-way mode, LONG or SHORT in hedge mode, and there no reduceOnly, not even a false one."""
    side = choice(params, "positionSide", ("BOTH", "LONG", "SHORT"), "BOTH", -4060)
    if (side == "BOTH") == hedge_mode:
        raise refused(-4061)
    if hedge_mode and "reduceOnly" in params:
        raise refused(-1106, "reduceonly")
    return side


def check_fits_type(kind: str, params: Mapping[str, str]) -> None:
    for name in NEEDS[kind]:
        if name not in params and not (name == "quantity" and params.get("closePosition") == "true"):
            raise refused(-1102, name.lower(), text=1)
    for name in BY_TYPE:
        if name in params and name not in (*NEEDS[kind], *MAY_HAVE.get(kind, ())):
            raise refused(-1106, name.lower())
    for name in ("priceMatch", "goodTillDate"):  # not served: a client that needs them shall notice
        if name in params and params[name] not in ("NONE", "0"):
            raise refused(-1106, name.lower())


def read_order(params: Mapping[str, str], *, hedge_mode: bool) -> NewFuturesOrder:
    side = choice(params, "side", ("BUY", "SELL"), "", -1117)
    kind = choice(params, "type", ("LIMIT", "MARKET", *CONDITIONAL), "", -1116)
    if kind in CONDITIONAL:
        raise refused(-4120)
    time_in_force = choice(params, "timeInForce", ("GTC", "IOC", "FOK", "GTX"), "GTC", -1115)
    check_fits_type(kind, params)
    return NewFuturesOrder(
        symbol=params["symbol"],
        side=side,
        type=kind,
        client_id=client_id(params, "newClientOrderId"),
        quantity=number(params, "quantity"),
        price=number(params, "price"),
        time_in_force=time_in_force,
        position_side=position_side(params, hedge_mode=hedge_mode),
        reduce_only=flag(params, "reduceOnly"),
        stp_mode=choice(params, "selfTradePreventionMode", STP_MODES, "EXPIRE_MAKER"),
    )


def read_algo(params: Mapping[str, str], *, hedge_mode: bool) -> NewAlgo:
    choice(params, "algoType", ("CONDITIONAL",), "")
    side = choice(params, "side", ("BUY", "SELL"), "", -1117)
    kind = choice(params, "type", CONDITIONAL, "", -1116)
    time_in_force = choice(params, "timeInForce", ("GTC", "IOC", "FOK", "GTX", "GTE_GTC"), "GTC", -1115)
    check_fits_type(kind, params)
    if kind in ("STOP_MARKET", "TAKE_PROFIT_MARKET") and "quantity" not in params and not flag(params, "closePosition"):
        raise refused(-1102, "quantity", text=1)
    check_close_position(params)
    return NewAlgo(
        symbol=params["symbol"],
        side=side,
        type=kind,
        client_id=client_id(params, "clientAlgoId"),
        quantity=number(params, "quantity"),
        price=number(params, "price"),
        time_in_force=time_in_force,
        position_side=position_side(params, hedge_mode=hedge_mode),
        reduce_only=flag(params, "reduceOnly"),
        close_position=flag(params, "closePosition"),
        stp_mode=choice(params, "selfTradePreventionMode", STP_MODES, "EXPIRE_MAKER"),
        trigger_price=number(params, "triggerPrice"),
        working_type=choice(params, "workingType", ("MARK_PRICE", "CONTRACT_PRICE"), "CONTRACT_PRICE", -4031),
        price_protect=flag({"priceProtect": params.get("priceProtect", "false").lower()}, "priceProtect"),
        activate_price=number(params, "activatePrice"),
        callback_rate=number(params, "callbackRate"),
    )


def check_close_position(params: Mapping[str, str]) -> None:
    """Close-All comes without a quantity and without reduceOnly, and is no way in."""
    if not flag(params, "closePosition"):
        return
    if "quantity" in params:
        raise refused(-4137)
    if params.get("reduceOnly") == "false":
        raise refused(-4138)
    if "reduceOnly" in params:
        raise refused(-1106, "reduceonly")
    if (params.get("positionSide"), params["side"]) in (("LONG", "BUY"), ("SHORT", "SELL")):
        raise refused(-1128)
