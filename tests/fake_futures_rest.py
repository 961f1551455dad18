"""What each futures endpoint demands and answers, over one engine and its conditional orders.

Rules: https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api, .../account/rest-api and
.../market-data/rest-api. Signatures, windows and parameter names are checked as for spot (fake_rest.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from fake_algo import Algo, AlgoDesk
from fake_futures_matching import FuturesEngine, FuturesOrder, Position
from fake_futures_params import choice, flag, read_algo, read_order
from fake_futures_replies import (
    algo_history,
    algo_listed,
    algo_placed,
    algo_queried,
    asset_row,
    balance,
    fixed,
    placed,
    plain,
    position_in_account,
    position_in_account_v3,
    price_of,
    quantity_of,
    queried,
    risk_v2,
    risk_v3,
    tested,
    totals,
    traded,
)
from fake_futures_rules import BRACKETS, FuturesMarket, most_notional, refused
from fake_matching import ZERO, Row, load
from fake_rest import Call, Route, flat, limit, newest_or_oldest, within

DAY_MS = 86_400_000
DONE = "The operation of cancel all open order is done."
Version = TypeVar("Version", FuturesOrder, Algo)


@dataclass(slots=True)
class FuturesRest:
    """The endpoints. Whoever calls holds the engine's lock."""

    engine: FuturesEngine
    desk: AlgoDesk
    now_ms: Callable[[], int]
    lookup_lag_ms: int = 0
    placed_ms: list[int] = field(default_factory=list)  # when orders came in, for the limits on orders
    rate_limits: list[Row] = field(default_factory=lambda: list(load("binance_futures_symbols.json")["rateLimits"]))

    # --- market data

    def ping(self, call: Call) -> Row:
        return {}

    def time(self, call: Call) -> Row:
        return {"serverTime": self.now_ms()}

    def exchange_info(self, call: Call) -> Row:
        return {
            "timezone": "UTC",
            "serverTime": self.now_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": self.rate_limits,
            "exchangeFilters": [],
            "assets": load("binance_futures_symbols.json")["assets"],
            "symbols": [market.row for market in self.engine.markets.values()],
        }

    def price(self, call: Call) -> Any:
        return self._one_or_all(call, lambda market: {"price": price_of(market.last, market), "time": self.now_ms()})

    def book_ticker(self, call: Call) -> Any:
        def best(market: FuturesMarket) -> Row:
            bid, ask = next(iter(market.bids), (ZERO, ZERO)), next(iter(market.asks), (ZERO, ZERO))
            return {"bidPrice": price_of(bid[0], market), "bidQty": quantity_of(bid[1], market),
                    "askPrice": price_of(ask[0], market), "askQty": quantity_of(ask[1], market),
                    "time": self.now_ms()}  # fmt: skip

        return self._one_or_all(call, best)

    def depth(self, call: Call) -> Row:
        market, most = self.engine.market(call.params["symbol"]), int(call.params.get("limit", "500"))
        return {
            "lastUpdateId": market.updates,
            "E": self.now_ms(),
            "T": self.now_ms(),
            **{
                name: [[price_of(price, market), quantity_of(quantity, market)] for price, quantity in levels[:most]]
                for name, levels in (("bids", market.bids), ("asks", market.asks))
            },
        }

    def mark_price(self, call: Call) -> Any:
        def row(market: FuturesMarket) -> Row:
            mark = fixed(market.mark)
            return {"markPrice": mark, "indexPrice": mark, "estimatedSettlePrice": mark,
                    "lastFundingRate": "0.00010000", "interestRate": "0.00010000",
                    "nextFundingTime": (self.now_ms() // (8 * 3_600_000) + 1) * 8 * 3_600_000,
                    "time": self.now_ms()}  # fmt: skip

        return self._one_or_all(call, row)

    # --- the account's choices

    def position_mode(self, call: Call) -> Row:
        return {"dualSidePosition": self.engine.hedge_mode}

    def change_position_mode(self, call: Call) -> Row:
        self.engine.set_hedge_mode(flag(call.params, "dualSidePosition"), waiting=bool(self.desk.waiting()))
        return {"code": 200, "msg": "success"}

    def multi_assets_mode(self, call: Call) -> Row:
        return {"multiAssetsMargin": False}

    def change_leverage(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        self.engine.set_leverage(market.symbol, int(call.params["leverage"]))
        most = plain(most_notional(market.leverage))
        return {"leverage": market.leverage, "maxNotionalValue": most, "symbol": market.symbol}

    def change_margin_type(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        wanted = choice(call.params, "marginType", ("ISOLATED", "CROSSED"), "")
        self.engine.set_isolated(market.symbol, wanted == "ISOLATED")
        return {"code": 200, "msg": "success"}

    def leverage_brackets(self, call: Call) -> Any:
        floors = {leverage: most for (_, most), (leverage, _) in pairwise(BRACKETS)}
        brackets = [
            {"bracket": index, "initialLeverage": leverage, "notionalCap": int(most),
             "notionalFloor": int(floors.get(leverage, 0)), "maintMarginRatio": 0.004, "cum": 0.0}
            for index, (leverage, most) in enumerate(BRACKETS, 1)
        ]  # fmt: skip
        return self._one_or_all(call, lambda market: {"brackets": brackets})

    def symbol_config(self, call: Call) -> Any:
        return [
            {
                "symbol": market.symbol,
                "marginType": "ISOLATED" if market.isolated else "CROSSED",
                "isAutoAddMargin": False,
                "leverage": market.leverage,
                "maxNotionalValue": plain(most_notional(market.leverage)),
            }
            for market in self._chosen(call)
        ]

    def account_config(self, call: Call) -> Row:
        return {**self._permissions(), "dualSidePosition": self.engine.hedge_mode}

    def commission_rate(self, call: Call) -> Row:
        return {
            "symbol": self.engine.market(call.params["symbol"]).symbol,
            "makerCommissionRate": plain(self.engine.maker_rate),
            "takerCommissionRate": plain(self.engine.taker_rate),
            "rpiCommissionRate": "0.00005",
        }

    # --- money and positions

    def account(self, call: Call) -> Row:
        """All symbols, whether there is a position or not."""
        return {
            "feeBurn": self.engine.fees_in_bnb,
            **self._permissions(),
            **totals(self.engine),
            "assets": [{**row, "marginAvailable": True} for row in self._assets()],
            "positions": [position_in_account(self.engine, each) for each in self._positions(call)],
        }

    def account_v3(self, call: Call) -> Row:
        """Only symbols with a position or open orders."""
        return {
            **totals(self.engine),
            "assets": self._assets(),
            "positions": [position_in_account_v3(self.engine, each) for each in self._positions(call, in_use=True)],
        }

    def balances(self, call: Call) -> list[Row]:
        return [balance(self.engine, asset, self._updated_ms()) for asset in self.engine.wallets]

    def position_risk(self, call: Call) -> list[Row]:
        return [risk_v2(self.engine, each) for each in self._positions(call)]

    def position_risk_v3(self, call: Call) -> list[Row]:
        """Only symbols with a position or open orders: nothing at all for a symbol without."""
        return [risk_v3(self.engine, each) for each in self._positions(call, in_use=True)]

    def user_trades(self, call: Call) -> list[Row]:
        market, horizon = self.engine.market(call.params["symbol"]), self._horizon
        if "fromId" in call.params and {"startTime", "endTime"} & set(call.params):
            raise refused(-1128)
        self._check_span(call)
        order_id, from_id = call.params.get("orderId"), int(call.params.get("fromId", "0"))
        timed = {"startTime", "endTime", "fromId"} & set(call.params)
        earliest = 0 if timed else self.now_ms() - 7 * DAY_MS  # the page does not exempt a question by order
        trades = [
            trade
            for trade in self.engine.trades
            if trade.symbol == market.symbol
            and earliest <= trade.time_ms <= horizon
            and within(call, trade.time_ms)
            and order_id in (None, str(trade.order_id))
            and trade.trade_id >= from_id
        ]
        chosen = trades[: limit(call)] if from_id else newest_or_oldest(call, trades)
        return [traded(trade, market) for trade in chosen]

    # --- orders

    def place(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        full = choice(call.params, "newOrderRespType", ("ACK", "RESULT"), "ACK", -1136) == "RESULT"
        new = read_order(call.params, hedge_mode=self.engine.hedge_mode)
        call.in_engine = True
        order = self.engine.place(new, self.now_ms())
        call.order_id = order.order_id
        self.placed_ms.append(order.time_ms)
        final = full and (order.at_market or order.time_in_force in ("IOC", "FOK"))
        return placed(order if final else self.engine.versions[order.order_id][0], market)

    def test_order(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        new = read_order(call.params, hedge_mode=self.engine.hedge_mode)
        self.engine.check(new)
        values = {name: getattr(new, name) for name in new.__dataclass_fields__}
        return tested(FuturesOrder(**values, update_ms=self.now_ms()), market)

    def query(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        return queried(self._find_order(call), market)

    def query_open(self, call: Call) -> Row:
        order = self._find_order(call)
        if not order.is_open:
            raise refused(-2013)
        return queried(order, self.engine.market(order.symbol))

    def cancel(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        is_meant = self._asked_for(call, "orderId", "origClientOrderId")
        for order in reversed(self.engine.open_orders(market.symbol)):
            if is_meant(order.order_id, order.client_id):
                return placed(self.engine.cancel(order, self.now_ms()), market)
        raise refused(-2011, text=0)

    def cancel_all(self, call: Call) -> Row:
        """Conditional orders stay."""
        for order in self.engine.open_orders(self.engine.market(call.params["symbol"]).symbol):
            self.engine.cancel(order, self.now_ms())
        return {"code": 200, "msg": DONE}

    def open_orders(self, call: Call) -> list[Row]:
        chosen = {market.symbol: market for market in self._chosen(call)}
        return [
            queried(order, chosen[order.symbol]) for order in self._orders() if order.is_open and order.symbol in chosen
        ]

    def all_orders(self, call: Call) -> list[Row]:
        market, from_id = self.engine.market(call.params["symbol"]), int(call.params.get("orderId", "0"))
        self._check_span(call)
        orders = [
            order
            for order in self._orders()
            if order.symbol == market.symbol and order.order_id >= from_id and within(call, order.time_ms)
        ]
        chosen = orders[: limit(call)] if from_id else newest_or_oldest(call, orders)
        return [queried(order, market) for order in chosen]

    # --- conditional orders

    def place_algo(self, call: Call) -> Row:
        market = self.engine.market(call.params["symbol"])
        new = read_algo(call.params, hedge_mode=self.engine.hedge_mode)
        call.in_engine = True
        algo = self.desk.place(new, self.now_ms())
        call.order_id = algo.algo_id
        self.placed_ms.append(algo.create_ms)
        return algo_placed(algo, market)

    def query_algo(self, call: Call) -> Row:
        is_meant = self._asked_for(call, "algoId", "clientAlgoId")
        for algo in reversed(self._algos()):
            if is_meant(algo.algo_id, algo.client_id):
                return algo_queried(algo, self._child(algo), self.engine.market(algo.symbol))
        raise refused(-2013)

    def cancel_algo(self, call: Call) -> Row:
        is_meant = self._asked_for(call, "algoId", "clientAlgoId")
        for algo in reversed(self.desk.waiting()):
            if is_meant(algo.algo_id, algo.client_id) and algo.status == "NEW":
                self.desk.cancel(algo, self.now_ms())
                return {"algoId": algo.algo_id, "clientAlgoId": algo.client_id, "code": "200", "msg": "success"}
        raise refused(-2011, text=0)

    def cancel_all_algos(self, call: Call) -> Row:
        for algo in self.desk.waiting(self.engine.market(call.params["symbol"]).symbol):
            self.desk.cancel(algo, self.now_ms())
        return {"code": 200, "msg": DONE}

    def open_algos(self, call: Call) -> list[Row]:
        symbols = {market.symbol for market in self._chosen(call)}
        return [
            algo_listed(algo, self._child(algo))
            for algo in self._algos()
            if algo.is_waiting and algo.symbol in symbols and call.params.get("algoId") in (None, str(algo.algo_id))
        ]

    def all_algos(self, call: Call) -> list[Row]:
        market, from_id = self.engine.market(call.params["symbol"]), int(call.params.get("algoId", "0"))
        self._check_span(call)
        algos = [
            algo
            for algo in self._algos()
            if algo.symbol == market.symbol and algo.algo_id >= from_id and within(call, algo.create_ms)
        ]
        chosen = algos[: limit(call)] if from_id else newest_or_oldest(call, algos)
        return [algo_history(algo, self._child(algo), market) for algo in chosen]

    # --- limits

    def order_usage(self) -> list[Row]:
        """Every order counts, whether it trades or not."""
        return [
            {**each, "count": len(self.placed_ms) - bisect_left(self.placed_ms, self._start_of(each))}
            for each in self.rate_limits
            if each["rateLimitType"] == "ORDERS"
        ]

    def order_limits(self, call: Call) -> list[Row]:
        return [each for each in self.rate_limits if each["rateLimitType"] == "ORDERS"]

    # --- helpers of the above

    def _start_of(self, rate_limit: Row) -> int:
        interval_ms = {"SECOND": 1000, "MINUTE": 60_000}[rate_limit["interval"]] * int(rate_limit["intervalNum"])
        return self.now_ms() // interval_ms * interval_ms

    def _chosen(self, call: Call) -> list[FuturesMarket]:
        if "symbol" in call.params:
            return [self.engine.market(call.params["symbol"])]
        return list(self.engine.markets.values())

    def _one_or_all(self, call: Call, row: Callable[[FuturesMarket], Row]) -> Any:
        rows = [{"symbol": market.symbol, **row(market)} for market in self._chosen(call)]
        return rows[0] if "symbol" in call.params else rows

    def _permissions(self) -> Row:
        return {
            "feeTier": 0,
            "canTrade": True,
            "canDeposit": True,
            "canWithdraw": True,
            "updateTime": 0,
            "multiAssetsMargin": False,
            "tradeGroupId": -1,
        }

    def _updated_ms(self) -> int:
        return max((each.update_ms for each in self.engine.positions.values()), default=0)

    def _assets(self) -> list[Row]:
        return [asset_row(self.engine, asset, self._updated_ms()) for asset in self.engine.wallets]

    def _positions(self, call: Call, *, in_use: bool = False) -> list[Position]:
        """Of the sides that the mode knows; `in_use` leaves out those without an amount and without open orders."""
        now_ms = self.now_ms()
        found = [self.engine.known_position(market.symbol, side, now_ms) for market in self._chosen(call)
                 for side in self.engine.sides]  # fmt: skip
        ordered = {(order.symbol, order.position_side) for order in self.engine.open_orders()}
        return [each for each in found if not in_use or each.amount or (each.symbol, each.side) in ordered]

    @property
    def _horizon(self) -> int:
        """The look-ups' memory trails the engine: what happened later is not known there yet."""
        return self.now_ms() - self.lookup_lag_ms

    def _known(self, histories: Iterable[list[Version]]) -> list[Version]:
        """Each as it was at the horizon, if it was there at all."""
        horizon = self._horizon
        as_of = [next((each for each in reversed(states) if each.update_ms <= horizon), None) for states in histories]
        return [each for each in as_of if each]

    def _orders(self, of_client: str | None = None) -> list[FuturesOrder]:
        """All orders, or those with this id of the client."""
        if of_client is None:
            histories = list(self.engine.versions.values())
        else:
            histories = [self.engine.versions[order_id] for order_id in self.engine.ids_of_client.get(of_client, [])]
        return [each for each in self._known(histories) if not self._forgotten(each, each.time_ms)]

    def _algos(self) -> list[Algo]:
        known = self._known(self.desk.versions.values())
        return [each for each in known if not self._forgotten(each, each.create_ms)]

    def _forgotten(self, each: FuturesOrder | Algo, time_ms: int) -> bool:
        """Canceled and expired ones without a trade are gone after three days, all after ninety."""
        age_ms = self.now_ms() - time_ms
        traded_nothing = not each.executed if isinstance(each, FuturesOrder) else not each.order_id
        return age_ms > 90 * DAY_MS or (
            age_ms > 3 * DAY_MS and each.status in ("CANCELED", "EXPIRED") and traded_nothing
        )

    def _child(self, algo: Algo) -> FuturesOrder | None:
        return self.engine.orders.get(algo.order_id)

    def _asked_for(self, call: Call, id_name: str, client_name: str) -> Callable[[int, str], bool]:
        """Which order is meant; the exchange's own id goes first."""
        number, name = call.params.get(id_name), call.params.get(client_name)
        if number is None and name is None:
            raise refused(-1102, client_name, id_name)
        return lambda its_id, its_name: its_name == name if number is None else str(its_id) == number

    def _find_order(self, call: Call) -> FuturesOrder:
        is_meant = self._asked_for(call, "orderId", "origClientOrderId")
        by_name = None if "orderId" in call.params else call.params["origClientOrderId"]
        for order in reversed(self._orders(by_name)):  # ids may be used again once filled: the newest is meant
            if order.symbol == call.params["symbol"] and is_meant(order.order_id, order.client_id):
                return order
        raise refused(-2013)

    def _check_span(self, call: Call) -> None:
        start, end = call.params.get("startTime"), call.params.get("endTime")
        if start and end and int(end) - int(start) > 7 * DAY_MS:
            raise refused(-4165, 7)


def by_symbol(one: int, every: int) -> Callable[[Mapping[str, str]], int]:
    return lambda params: one if "symbol" in params else every


def depth_weight(params: Mapping[str, str]) -> int:
    wanted = int(params["limit"]) if params.get("limit", "").isdecimal() else 500
    return next((weight for most, weight in ((50, 2), (100, 5), (500, 10)) if wanted <= most), 20)


FUTURES_ROUTES: Mapping[str, Route[FuturesRest]] = {
    "GET /fapi/v1/ping": Route(FuturesRest.ping, flat(1), signed=False),
    "GET /fapi/v1/time": Route(FuturesRest.time, flat(1), signed=False),
    "GET /fapi/v1/exchangeInfo": Route(FuturesRest.exchange_info, flat(1), signed=False),
    "GET /fapi/v1/ticker/price": Route(FuturesRest.price, by_symbol(1, 2), signed=False),
    "GET /fapi/v2/ticker/price": Route(FuturesRest.price, by_symbol(1, 2), signed=False),
    "GET /fapi/v1/ticker/bookTicker": Route(FuturesRest.book_ticker, by_symbol(2, 5), signed=False),
    "GET /fapi/v1/depth": Route(FuturesRest.depth, depth_weight, signed=False),
    "GET /fapi/v1/premiumIndex": Route(FuturesRest.mark_price, by_symbol(1, 10), signed=False),
    "GET /fapi/v1/positionSide/dual": Route(FuturesRest.position_mode, flat(30)),
    "POST /fapi/v1/positionSide/dual": Route(FuturesRest.change_position_mode, flat(1)),
    "GET /fapi/v1/multiAssetsMargin": Route(FuturesRest.multi_assets_mode, flat(30)),
    "POST /fapi/v1/leverage": Route(FuturesRest.change_leverage, flat(1)),
    "POST /fapi/v1/marginType": Route(FuturesRest.change_margin_type, flat(1)),
    "GET /fapi/v1/leverageBracket": Route(FuturesRest.leverage_brackets, flat(1)),
    "GET /fapi/v1/symbolConfig": Route(FuturesRest.symbol_config, flat(5)),
    "GET /fapi/v1/accountConfig": Route(FuturesRest.account_config, flat(5)),
    "GET /fapi/v1/commissionRate": Route(FuturesRest.commission_rate, flat(20)),
    "GET /fapi/v1/rateLimit/order": Route(FuturesRest.order_limits, flat(1)),
    "GET /fapi/v2/account": Route(FuturesRest.account, flat(5)),
    "GET /fapi/v3/account": Route(FuturesRest.account_v3, flat(5)),
    "GET /fapi/v2/balance": Route(FuturesRest.balances, flat(5)),
    "GET /fapi/v3/balance": Route(FuturesRest.balances, flat(5)),
    "GET /fapi/v2/positionRisk": Route(FuturesRest.position_risk, flat(5)),
    "GET /fapi/v3/positionRisk": Route(FuturesRest.position_risk_v3, flat(5)),
    "GET /fapi/v1/userTrades": Route(FuturesRest.user_trades, flat(5)),
    "POST /fapi/v1/order": Route(FuturesRest.place, flat(1), places=True),
    "POST /fapi/v1/order/test": Route(FuturesRest.test_order, flat(1)),
    "GET /fapi/v1/order": Route(FuturesRest.query, flat(1)),
    "DELETE /fapi/v1/order": Route(FuturesRest.cancel, flat(1), places=True, free=False),
    "GET /fapi/v1/openOrder": Route(FuturesRest.query_open, flat(1)),
    "GET /fapi/v1/openOrders": Route(FuturesRest.open_orders, by_symbol(1, 40)),
    "GET /fapi/v1/allOrders": Route(FuturesRest.all_orders, flat(5)),
    "DELETE /fapi/v1/allOpenOrders": Route(FuturesRest.cancel_all, flat(1), places=True, free=False),
    "POST /fapi/v1/algoOrder": Route(FuturesRest.place_algo, flat(1), places=True),
    "GET /fapi/v1/algoOrder": Route(FuturesRest.query_algo, flat(1)),
    "DELETE /fapi/v1/algoOrder": Route(FuturesRest.cancel_algo, flat(1), places=True, free=False),
    "GET /fapi/v1/openAlgoOrders": Route(FuturesRest.open_algos, by_symbol(1, 40)),
    "GET /fapi/v1/allAlgoOrders": Route(FuturesRest.all_algos, flat(5)),
    "DELETE /fapi/v1/algoOpenOrders": Route(FuturesRest.cancel_all_algos, flat(1), places=True, free=False),
}
