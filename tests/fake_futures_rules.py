"""What Binance asks of a futures order before it may touch the book: pure functions that raise its refusal.

Filters: https://developers.binance.com/docs/derivatives/usds-margined-futures/common-definition#filters
Codes: https://developers.binance.com/docs/derivatives/usds-margined-futures/error-code
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from fake_matching import ZERO, ApiError, Market, Row, error, load

FUTURES_ERRORS = load("binance_futures_errors.json")
CONDITIONAL = ("STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET")
BRACKETS: list[tuple[int, Decimal]] = [
    (leverage, Decimal(most)) for leverage, most in load("binance_futures_symbols.json")["brackets"]
]


def refused(code: int, *values: object, text: int | None = None) -> ApiError:
    """A refusal in the words of futures."""
    return error(code, *values, text=text, table=FUTURES_ERRORS)


@dataclass(slots=True)
class FuturesMarket(Market):
    """One contract: a book and its last price as for spot, a mark price, and the account's choices for it."""

    mark: Decimal = ZERO
    leverage: int = 20
    isolated: bool = False

    @property
    def symbol(self) -> str:
        return str(self.row["symbol"])

    @property
    def asset(self) -> str:
        """What margin, profit and fees are in."""
        return str(self.row["marginAsset"])

    def band(self, price: Decimal, *, is_buy: bool) -> bool:
        """PERCENT_PRICE: nobody buys far above the mark price, nobody sells far below it."""
        if "PERCENT_PRICE" not in self.filters:
            return True
        if is_buy:
            return price <= self.mark * self.number("PERCENT_PRICE", "multiplierUp")
        return price >= self.mark * self.number("PERCENT_PRICE", "multiplierDown")


@dataclass(frozen=True, slots=True)
class NewFuturesOrder:
    """An order as asked for, its parameters already well-formed."""

    symbol: str
    side: str
    type: str
    client_id: str
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    time_in_force: str = "GTC"
    position_side: str = "BOTH"
    reduce_only: bool = False
    close_position: bool = False
    stp_mode: str = "EXPIRE_MAKER"

    @property
    def is_buy(self) -> bool:
        return self.side == "BUY"

    @property
    def at_market(self) -> bool:
        return self.type == "MARKET"

    @property
    def reduces(self) -> bool:
        """It may only make a position smaller: by its flag, or by its side in hedge mode."""
        return self.reduce_only or (self.position_side, self.side) in (("LONG", "SELL"), ("SHORT", "BUY"))


def most_notional(leverage: int) -> Decimal:
    """The largest position at this leverage."""
    return next(most for highest, most in reversed(BRACKETS) if leverage <= highest)


def decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def on_step(value: Decimal, start: Decimal, step: Decimal) -> bool:
    """Counted from the smallest value, not from zero: (price - minPrice) % tickSize == 0."""
    return not step or (value - start) % step == 0


# --- the rules, in the order in which the first breach is reported ------------------------------------------------


def trading(new: NewFuturesOrder, market: FuturesMarket) -> None:
    status = market.row["status"]
    if status in ("SETTLING", "CLOSE", "DELIVERED"):
        raise refused(-4141)
    if status != "TRADING" and not new.reduces:
        raise refused(-4140)


def precision(new: NewFuturesOrder, market: FuturesMarket) -> None:
    if decimals(new.quantity) > market.row["quantityPrecision"] or decimals(new.price) > market.row["pricePrecision"]:
        raise refused(-1111)


def quantity(new: NewFuturesOrder, market: FuturesMarket) -> None:
    names = ["LOT_SIZE", "MARKET_LOT_SIZE"] if new.at_market else ["LOT_SIZE"]
    if new.quantity <= 0:
        raise refused(-4003, text=0)
    for name in names:
        least, most = market.number(name, "minQty"), market.number(name, "maxQty")
        if new.quantity < least:
            raise refused(-4004)
        if most and new.quantity > most:
            raise refused(-4005)
        if not on_step(new.quantity, least, market.number(name, "stepSize")):
            raise refused(-4023)


def price(new: NewFuturesOrder, market: FuturesMarket) -> None:
    if not new.at_market:
        check_price(new.price, market)


def check_price(value: Decimal, market: FuturesMarket, *, too_high: int = -4002) -> None:
    """A price, or a trigger price, on the grid of PRICE_FILTER."""
    least, most = market.number("PRICE_FILTER", "minPrice"), market.number("PRICE_FILTER", "maxPrice")
    if value < least:
        raise refused(-4013)
    if most and value > most:
        raise refused(too_high)
    if not on_step(value, least, market.number("PRICE_FILTER", "tickSize")):
        raise refused(-4014)


def price_band(new: NewFuturesOrder, market: FuturesMarket) -> None:
    if new.at_market or market.band(new.price, is_buy=new.is_buy):
        return
    name, code = ("multiplierUp", -4016) if new.is_buy else ("multiplierDown", -4024)
    raise refused(code, f"{(market.mark * market.number('PERCENT_PRICE', name)).normalize():f}")


def notional(new: NewFuturesOrder, market: FuturesMarket) -> None:
    """A market order has no price and is judged by the mark price; a way out may be as small as it is."""
    least = market.filters.get("MIN_NOTIONAL", {}).get("notional", "0")
    value = new.quantity * (market.mark if new.at_market else new.price)
    if not new.reduces and value < Decimal(least):
        raise refused(-4164, least, text=0)


RULES = (trading, precision, quantity, price, price_band, notional)


def check(new: NewFuturesOrder, market: FuturesMarket) -> None:
    for rule in RULES:
        rule(new, market)


def check_count(open_orders: int, filters: dict[str, Row]) -> None:
    """MAX_NUM_ORDERS on one symbol."""
    if open_orders >= filters.get("MAX_NUM_ORDERS", {}).get("limit", open_orders + 1):
        raise refused(-2025)
