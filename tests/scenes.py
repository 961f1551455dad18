"""One daemon and the account it trades: one story can be told of spot, of futures in both modes, of paper and of BingX.

BTCUSDT costs 40000 when the story begins; an entry is 0.01 BTC, of which spot keeps 0.00999 (the fee is taken in BTC).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from binance.client import Client
from fake_binance import FakeBinance
from fake_bingx import FakeBingx
from harness import API_KEY, API_SECRET, Daemon, Reply, binance, bingx, eventually, futures

SYMBOL = "BTCUSDT"
PRICE = Decimal(40000)
QUANTITY = Decimal("0.01")
LEGS = {
    "STOP_LOSS": "stop_loss",
    "LIMIT": "take_profit",
    "LIMIT_MAKER": "take_profit",
    "STOP_MARKET": "stop_loss",
    "TAKE_PROFIT_MARKET": "take_profit",
    "TRAILING_STOP_MARKET": "trailing_stop",
}
GENEROUS = {"cooldown_seconds": 0, "max_risk_per_trade": 1000, "max_trades_per_day": 100, "paper_balance_usdt": 10000}
QUICK = {"follow": 0.1, "longest_look": 0.2, "first_look": 0.05, "slack": 0.3, "late": [0.5, 1.0], "second_look": 0.2,
         "compare": 600}  # fmt: skip

# (what, price or percent, quantity); of futures a stop and a take-profit close whatever there is.
Waiting = tuple[str, Decimal, Decimal | None]
Make = Callable[..., Daemon]


class Scene:
    """`kind`: spot, futures, hedge, paper or paper futures."""

    def __init__(self, kind: str, make: Make, fake: FakeBinance, patience: dict[str, object], **settings: object):
        self.kind, self.fake = kind, fake
        self.is_paper, self.is_spot = kind.startswith("paper"), kind in ("spot", "paper")
        given = GENEROUS | {"test_patience": QUICK | patience} | settings
        fake.set_price(SYMBOL, PRICE)
        fake.futures.set_price(SYMBOL, PRICE)
        fake.futures.set_options(hedge_mode=kind == "hedge")
        if self.is_paper:
            self.daemon = make(**given, binance_market="spot" if self.is_spot else "futures")
        else:
            self.daemon = make(**((binance if self.is_spot else futures)(fake) | given))
        self.owner = Client(API_KEY, API_SECRET, ping=False)
        self.owner.API_URL, self.owner.FUTURES_URL = fake.api_url, fake.fapi_url

    # --- alerts -----------------------------------------------------------------------------------------------------

    def post(self, action: str, **alert: object) -> Reply:
        """With a price, as TradingView's {{close}}: the one that paper goes by."""
        said: dict[str, Any] = {"symbol": SYMBOL, "action": action, "price": str(self.price)} | alert
        return self.daemon.post(**said)

    def enter(self, action: str = "buy", **alert: object) -> Reply:
        reply = self.post(action, **({"quantity": str(QUANTITY)} | alert))
        assert reply["status"] == "FILLED", reply.body
        return reply

    price = PRICE

    def move(self, price: object) -> None:
        """On paper nothing happens before an alert tells of it: one that is refused will do."""
        self.price = Decimal(str(price))
        if self.is_paper:
            reply = self.post("buy", confidence=1, comment=str(time.monotonic_ns()))
            assert reply["check"] == "confidence"
        elif self.is_spot:
            self.fake.set_price(SYMBOL, self.price)
        else:
            self.fake.futures.set_price(SYMBOL, self.price)

    # --- what there is ----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return self.daemon.owner_get("/status")

    def waiting(self) -> list[Waiting]:
        """The protection that waits, as the exchange has it."""
        if self.is_paper:
            resting = [o for o in self.status()["resting_orders"] if o["leg"]]
            return sorted((o["leg"], dec(o["stop_price"] or 0), o["quantity"] and dec(o["quantity"])) for o in resting)
        if self.is_spot:
            return sorted(
                (LEGS[o.type], o.stop_price or o.price, o.remaining)
                for o in self.fake.orders
                if o.is_open and o.side == "SELL"
            )
        return sorted(
            (LEGS[a.type], a.trigger_price or a.callback_rate, None if a.close_position else a.quantity)
            for a in self.fake.futures.algos
            if a.is_waiting
        )

    def protected(self, quantity: str = "", **levels: object) -> list[Waiting]:
        """What has to wait: `stop_loss=39200`; `quantity` where it is not the first entry's."""
        sized = Decimal(quantity) if quantity else QUANTITY if not self.is_spot else Decimal("0.00999")
        if not quantity and self.kind == "paper":
            sized = QUANTITY - QUANTITY / 1000
        whole = sized if self.is_spot else None
        return sorted((leg, dec(level), sized if leg == "trailing_stop" else whole) for leg, level in levels.items())

    def wait_for(self, *wanted: Waiting) -> None:
        """Until exactly this waits, and the books know it."""
        eventually(lambda: self.waiting() == sorted(wanted) and self.is_settled(), 10, lambda: self.tell(wanted))

    def is_settled(self) -> bool:
        status = self.status()
        legs = [o for o in status["resting_orders"] if o["leg"]]
        return not status["unresolved_orders"] and len(legs) == len(self.waiting())

    def orders(self) -> list[Any]:
        """All orders that the exchange took, conditional ones apart."""
        return [*self.fake.orders, *self.fake.futures.orders]

    def held(self) -> Decimal:
        """By the books; negative for a short."""
        positions = [p for p in self.status()["positions"] if p["symbol"] == SYMBOL]
        return sum((dec(p["quantity"]) * (-1 if p["side"] == "SHORT" else 1) for p in positions), Decimal(0))

    def held_there(self) -> Decimal:
        if self.is_paper:
            return self.held()
        if self.is_spot:
            return self.fake.free("BTC") + self.fake.locked("BTC")
        return sum((p.amount for p in self.fake.futures.positions), Decimal(0))

    def wait_until_flat(self) -> None:
        """Nothing is held, nothing waits, nothing is in doubt, here and there."""
        eventually(
            lambda: not self.held() and not self.waiting() and self.is_settled(), 10, lambda: self.tell("nothing")
        )
        assert abs(self.held_there()) < Decimal("0.00002")

    def rows(self, **columns: str) -> list[dict[str, str]]:
        """Of trades.csv, those with these values; a Note is found by its beginning."""
        note = columns.pop("Note", "")
        rows = [row for row in self.daemon.trades() if row["Note"].startswith(note)]
        return [row for row in rows if all(row[name] == value for name, value in columns.items())]

    def notices(self) -> str:
        return "\n".join(notice["text"] for notice in self.status()["notices"])

    def tell(self, wanted: object) -> str:
        return f"wanted {wanted}, waiting {self.waiting()}, held {self.held()}: {self.daemon.log()[-2500:]}"

    # --- what the owner does at the exchange ------------------------------------------------------------------------

    def cancel_by_hand(self) -> None:
        if self.is_spot:
            for order in self.fake.orders:
                if order.is_open and order.order_id in {each["orderId"] for each in self.owner.get_open_orders()}:
                    self.owner.cancel_order(symbol=SYMBOL, orderId=order.order_id)
        else:
            for algo in self.fake.futures.algos:
                if algo.is_waiting:
                    self.owner.futures_cancel_order(clientAlgoId=algo.client_id)

    def close_by_hand(self, quantity: object = "0.01", side: str = "SELL") -> str:
        """The exchange's id of the order. On spot, what protection has locked must be free."""
        wanted = {"symbol": SYMBOL, "side": side, "type": "MARKET", "quantity": str(quantity)}
        if self.is_spot:
            return str(self.owner.create_order(**wanted)["orderId"])
        hedge = {"positionSide": "LONG" if side == "SELL" else "SHORT"}
        wanted |= hedge if self.kind == "hedge" else {"reduceOnly": "true"}
        return str(self.owner.futures_create_order(**wanted)["orderId"])


class BingxScene(Scene):
    """`kind`: bingx or bingx hedge, the perpetual swap in one-way or hedge mode."""

    there = "BTC-USDT"

    def __init__(self, kind: str, make: Make, fake: FakeBingx, patience: dict[str, object], **settings: object):
        self.kind, self.bingx = kind, fake
        self.is_paper = self.is_spot = False
        fake.set_price(self.there, PRICE)
        fake.set_options(hedge_mode=kind == "bingx hedge")
        self.daemon = make(**bingx(fake) | GENEROUS | {"test_patience": QUICK | patience} | settings)

    def move(self, price: object) -> None:
        self.price = Decimal(str(price))
        self.bingx.set_price(self.there, self.price)

    def waiting(self) -> list[Waiting]:
        return sorted((LEGS[o.type], o.stop_price, None) for o in self.bingx.waiting if o.close_position)

    def orders(self) -> list[Any]:
        return [order for order in self.bingx.orders if not order.close_position]

    def held_there(self) -> Decimal:
        return self.bingx.amount(self.there)

    def cancel_by_hand(self) -> None:
        for order in self.bingx.waiting:
            self.bingx.cancel_swap({"symbol": self.there, "orderId": str(order.order_id)})

    def close_by_hand(self, quantity: object = "0.01", side: str = "SELL") -> str:
        wanted = {"symbol": self.there, "side": side, "type": "MARKET", "quantity": str(quantity)}
        closes = "LONG" if side == "SELL" else "SHORT"
        hedge, one_way = {"positionSide": closes}, {"positionSide": "BOTH", "reduceOnly": "true"}
        return str(self.bingx.place_swap(wanted | (hedge if self.kind == "bingx hedge" else one_way))["orderId"])


def dec(value: object) -> Decimal:
    return Decimal(str(value))
