"""The JSON of futures: which fields each reply has, and how its numbers are written.

Pages: https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api and .../account/rest-api.
Two things differ from the older pages. Since 2026-07-15 (change log of the official SDK, 14.0.0) replies to POST and
DELETE order have no avgPrice and no cumQuote. And openAlgoOrders writes numbers as Java writes doubles ("7.0E-4") and
has actualQty in place of actualPrice, as recorded on the testnet in 2026-09.
"""

from __future__ import annotations

from decimal import Decimal

from fake_algo import Algo
from fake_futures_matching import FuturesEngine, FuturesOrder, FuturesTrade, Position
from fake_futures_rules import FuturesMarket, most_notional
from fake_matching import ZERO, Row

NOTHING = {"goodTillDate": 0, "priceMatch": "NONE"}


def fixed(value: Decimal, places: int = 8) -> str:
    text = f"{value:.{places}f}"
    return text if Decimal(text) else text.lstrip("-")  # a loss of nothing is no "-0.00000000"


def plain(value: Decimal, zero: str = "0") -> str:
    """As short as it can be, never with an exponent."""
    return f"{value.normalize():f}" if value else zero


def java_double(value: Decimal) -> str:
    """As Java's Double.toString: always with a point, from 10 million and below a thousandth with an exponent."""
    number = float(value)
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return str(number)
    digits, exponent = f"{Decimal(repr(number)):E}".split("E")
    whole, _, part = digits.partition(".")
    return f"{whole}.{part.rstrip('0') or '0'}E{int(exponent)}"


def price_of(value: Decimal, market: FuturesMarket) -> str:
    return fixed(value, market.row["pricePrecision"])


def quantity_of(value: Decimal, market: FuturesMarket) -> str:
    return fixed(value, market.row["quantityPrecision"])


def product_of(value: Decimal, market: FuturesMarket) -> str:
    """Price times quantity, and prices on average, have the decimals of both."""
    return fixed(value, market.row["pricePrecision"] + market.row["quantityPrecision"])


# --- orders -----------------------------------------------------------------------------------------------------


def common(order: FuturesOrder, market: FuturesMarket) -> Row:
    """What every reply about an order has."""
    return {
        "orderId": order.order_id,
        "symbol": order.symbol,
        "status": order.status,
        "clientOrderId": order.client_id,
        "price": price_of(order.price, market),
        "origQty": quantity_of(order.quantity, market),
        "executedQty": quantity_of(order.executed, market),
        "timeInForce": order.time_in_force,
        "type": order.type,
        "reduceOnly": order.reduces,
        "closePosition": order.close_position,
        "side": order.side,
        "positionSide": order.position_side,
        "stopPrice": price_of(ZERO, market),
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": order.type,
        "selfTradePreventionMode": order.stp_mode,
        "updateTime": order.update_ms,
        **NOTHING,
    }


def placed(order: FuturesOrder, market: FuturesMarket) -> Row:
    """The reply to POST and DELETE: without a price of what was traded."""
    return {**common(order, market), "cumQty": quantity_of(order.executed, market)}


def queried(order: FuturesOrder, market: FuturesMarket) -> Row:
    return {
        **common(order, market),
        "avgPrice": product_of(order.average_price, market) if order.executed else "0.00",
        "cumQuote": product_of(order.quote_executed, market),
        "time": order.time_ms,
    }


def tested(order: FuturesOrder, market: FuturesMarket) -> Row:
    return {**placed(order, market), "avgPrice": "0.00", "cumQuote": product_of(ZERO, market)}


def traded(trade: FuturesTrade, market: FuturesMarket) -> Row:
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "side": trade.side,
        "price": price_of(trade.price, market),
        "qty": quantity_of(trade.quantity, market),
        "realizedPnl": fixed(trade.realized_pnl),
        "quoteQty": product_of(trade.quote_quantity, market),
        "commission": fixed(trade.commission),
        "commissionAsset": trade.commission_asset,
        "time": trade.time_ms,
        "positionSide": trade.position_side,
        "buyer": trade.side == "BUY",
        "maker": trade.is_maker,
    }


# --- conditional orders -----------------------------------------------------------------------------------------


def algo_common(algo: Algo) -> Row:
    """closePosition shows as GTE_GTC and reduceOnly, whatever was sent."""
    return {
        "algoId": algo.algo_id,
        "clientAlgoId": algo.client_id,
        "algoType": "CONDITIONAL",
        "orderType": algo.type,
        "symbol": algo.symbol,
        "side": algo.side,
        "positionSide": algo.position_side,
        "timeInForce": "GTE_GTC" if algo.close_position else algo.time_in_force,
        "algoStatus": algo.status,
        "icebergQuantity": None,
        "selfTradePreventionMode": algo.stp_mode,
        "workingType": algo.working_type,
        "closePosition": algo.close_position,
        "priceProtect": algo.price_protect,
        "reduceOnly": algo.reduces or algo.close_position,
        "createTime": algo.create_ms,
        "updateTime": algo.update_ms,
        "triggerTime": algo.trigger_ms,
        **NOTHING,
    }


def algo_numbers(algo: Algo, market: FuturesMarket) -> Row:
    return {
        "quantity": quantity_of(algo.quantity, market) if algo.quantity else "0",
        "triggerPrice": price_of(algo.trigger_price, market),
        "price": price_of(algo.price, market),
    }


def algo_placed(algo: Algo, market: FuturesMarket) -> Row:
    reply = {**algo_common(algo), **algo_numbers(algo, market)}
    if algo.trails:
        reply["activatePrice"] = price_of(algo.activate_price, market)
        reply["callbackRate"] = plain(algo.callback_rate)
    return reply


def algo_queried(algo: Algo, order: FuturesOrder | None, market: FuturesMarket) -> Row:
    """With what it has become: the order's id is text, and empty until there is one."""
    reply = {
        **algo_common(algo),
        **algo_numbers(algo, market),
        "tpOrderType": "",
        "actualOrderId": str(algo.order_id) if algo.order_id else "",
        "actualPrice": product_of(order.average_price if order else ZERO, market),
    }
    if order:
        reply.update(actualType=order.type, actualQty=quantity_of(order.executed, market))
    return reply


def algo_history(algo: Algo, order: FuturesOrder | None, market: FuturesMarket) -> Row:
    """One of allAlgoOrders."""
    reply = algo_queried(algo, order, market)
    return {name: value for name, value in reply.items() if name not in ("actualType", "actualQty")}


def algo_listed(algo: Algo, order: FuturesOrder | None) -> Row:
    """One of openAlgoOrders."""
    return {
        **algo_common(algo),
        "quantity": java_double(algo.quantity),
        "triggerPrice": java_double(algo.trigger_price),
        "price": java_double(algo.price),
        "actualOrderId": str(algo.order_id) if algo.order_id else "",
        "actualQty": java_double(order.executed if order else ZERO),
    }


# --- account and positions --------------------------------------------------------------------------------------


def money(engine: FuturesEngine, asset: str) -> Row:
    """The numbers of one asset, as the account and its totals show them."""
    wallet, cross = engine.wallet(asset), engine.wallets.get(asset, ZERO)
    held = [each for each in engine.positions.values() if engine.markets[each.symbol].asset == asset]
    in_positions = sum((engine.position_margin(each) for each in held), ZERO)
    in_orders = sum(
        (engine.order_margin(market.symbol, side) for market in engine.markets.values() if market.asset == asset
         for side in engine.sides), ZERO,
    )  # fmt: skip
    kept = sum((maintenance_margin(each, engine.markets[each.symbol]) for each in held), ZERO)
    values = {
        "InitialMargin": in_positions + in_orders,
        "MaintMargin": kept,
        "WalletBalance": wallet,
        "UnrealizedProfit": engine.profit(asset),
        "MarginBalance": wallet + engine.profit(asset),
        "PositionInitialMargin": in_positions,
        "OpenOrderInitialMargin": in_orders,
        "CrossWalletBalance": cross,
        "CrossUnPnl": engine.profit(asset, isolated=False),
    }
    return {name: fixed(value) for name, value in values.items()}


def free_money(engine: FuturesEngine, asset: str) -> Row:
    free = fixed(engine.available(asset))
    return {"availableBalance": free, "maxWithdrawAmount": free}


def asset_row(engine: FuturesEngine, asset: str, updated_ms: int) -> Row:
    numbers = {name[0].lower() + name[1:]: value for name, value in money(engine, asset).items()}
    return {"asset": asset, **numbers, **free_money(engine, asset), "updateTime": updated_ms}


def totals(engine: FuturesEngine) -> Row:
    """Of USDT: that is what single-asset mode shows."""
    return {f"total{name}": value for name, value in money(engine, "USDT").items()} | free_money(engine, "USDT")


def balance(engine: FuturesEngine, asset: str, updated_ms: int) -> Row:
    return {
        "accountAlias": "SgsR",
        "asset": asset,
        "balance": fixed(engine.wallet(asset)),
        "crossWalletBalance": fixed(engine.wallets[asset]),
        "crossUnPnl": fixed(engine.profit(asset, isolated=False)),
        **free_money(engine, asset),
        "marginAvailable": True,
        "updateTime": updated_ms,
    }


def maintenance_margin(position: Position, market: FuturesMarket) -> Decimal:
    """A flat rate; the real one has brackets."""
    return abs(position.amount) * market.mark * Decimal("0.004")


def break_even(position: Position, engine: FuturesEngine) -> Decimal:
    """The entry price and the fee of having come in."""
    return position.entry_price * (1 + engine.taker_rate * position.direction)


def liquidation_price(position: Position, market: FuturesMarket) -> Decimal:
    """Only for isolated positions, and never acted upon."""
    if not position.amount or not market.isolated:
        return ZERO
    room = position.isolated_wallet / abs(position.amount) - position.entry_price * Decimal("0.004")
    return max(position.entry_price - room * position.direction, ZERO)


def notional(position: Position, market: FuturesMarket) -> str:
    return fixed(position.amount * market.mark) if position.amount else "0"


def position_in_account(engine: FuturesEngine, position: Position) -> Row:
    """A position of GET /fapi/v2/account."""
    market = engine.markets[position.symbol]
    in_orders = engine.order_margin(position.symbol, position.side)
    margin = engine.position_margin(position)
    return {
        "symbol": position.symbol,
        "initialMargin": plain(margin + in_orders),
        "maintMargin": plain(maintenance_margin(position, market)),
        "unrealizedProfit": fixed(position.profit(market.mark)),
        "positionInitialMargin": plain(margin),
        "openOrderInitialMargin": plain(in_orders),
        "leverage": str(market.leverage),
        "isolated": market.isolated,
        "entryPrice": plain(position.entry_price, "0.0"),
        "maxNotional": plain(most_notional(market.leverage)),
        "bidNotional": "0",
        "askNotional": "0",
        "positionSide": position.side,
        "positionAmt": quantity_of(position.amount, market),
        "updateTime": position.update_ms,
    }


def position_in_account_v3(engine: FuturesEngine, position: Position) -> Row:
    market = engine.markets[position.symbol]
    return {
        "symbol": position.symbol,
        "positionSide": position.side,
        "positionAmt": quantity_of(position.amount, market),
        "unrealizedProfit": fixed(position.profit(market.mark)),
        "isolatedMargin": fixed(isolated_margin(position, market)),
        "notional": notional(position, market),
        "isolatedWallet": plain(position.isolated_wallet),
        "initialMargin": plain(engine.position_margin(position) + engine.order_margin(position.symbol, position.side)),
        "maintMargin": plain(maintenance_margin(position, market)),
        "updateTime": position.update_ms,
    }


def isolated_margin(position: Position, market: FuturesMarket) -> Decimal:
    return position.isolated_wallet + position.profit(market.mark) if market.isolated else ZERO


def risk(engine: FuturesEngine, position: Position) -> Row:
    """What both versions of positionRisk tell."""
    market = engine.markets[position.symbol]
    return {
        "symbol": position.symbol,
        "positionSide": position.side,
        "positionAmt": quantity_of(position.amount, market),
        "entryPrice": plain(position.entry_price, "0.0"),
        "breakEvenPrice": plain(break_even(position, engine), "0.0"),
        "markPrice": fixed(market.mark),
        "unRealizedProfit": fixed(position.profit(market.mark)),
        "liquidationPrice": plain(liquidation_price(position, market)),
        "isolatedMargin": fixed(isolated_margin(position, market)),
        "notional": notional(position, market),
        "isolatedWallet": plain(position.isolated_wallet),
        "updateTime": position.update_ms,
    }


def risk_v2(engine: FuturesEngine, position: Position) -> Row:
    market = engine.markets[position.symbol]
    return {
        **risk(engine, position),
        "marginType": "isolated" if market.isolated else "cross",
        "isAutoAddMargin": "false",
        "leverage": str(market.leverage),
        "maxNotionalValue": plain(most_notional(market.leverage)),
    }


def risk_v3(engine: FuturesEngine, position: Position) -> Row:
    """Without leverage and margin type: symbolConfig has them."""
    market = engine.markets[position.symbol]
    margin, in_orders = engine.position_margin(position), engine.order_margin(position.symbol, position.side)
    return {
        **risk(engine, position),
        "marginAsset": market.asset,
        "initialMargin": plain(margin + in_orders),
        "maintMargin": plain(maintenance_margin(position, market)),
        "positionInitialMargin": plain(margin),
        "openOrderInitialMargin": plain(in_orders),
        "adl": 2 if position.amount else 0,
        "bidNotional": "0",
        "askNotional": "0",
    }
