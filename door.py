"""Where alerts come in: who is it, what is wanted, what is the answer. Decides nothing about orders."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

from fastapi import Request, Response

import queries
import replies
from access import Access
from config import MARKET_SETTINGS
from journal import JournalError
from models import Signal
from risk import Alert
from signals import AlertError, alert_key, json_fields, parse_alert
from trader import Trader
from web import error_body, json_reply, read_body
from wiring import FLATTRADE, Gatehouse

# TradingView hangs up after 3 s: https://www.tradingview.com/support/solutions/43000529348/
REPLY_SECONDS = 2.1


def at_flattrade(signal: Signal) -> Signal:
    """A share has one name in the books: that of NSE without its usual series, or BSE: before it.

    Of the exchange that the chart comes from only BSE routes: an order on NSE would be another market's.
    """
    symbol = signal.symbol.removesuffix("-EQ")
    return replace(signal, symbol=f"BSE:{symbol}" if signal.exchange == "BSE" else symbol)


class Door:
    """One alert's way from its bytes to its reply."""

    def __init__(self, gate: Gatehouse, trader: Trader, access: Access) -> None:
        self._gate = gate
        self._trader = trader
        self._access = access
        self._default_broker = gate.settings.default_broker_name

    async def webhook(self, request: Request) -> Response:
        give_up_at, received_at = asyncio.get_running_loop().time() + REPLY_SECONDS, self._gate.clock()
        body = await read_body(request)
        fields = json_fields(body)
        if not self._access.may_alert(request, body, fields):
            return await self._access.unauthorised(request)
        is_dry_run = queries.is_dry_run(request)
        unclear = None if is_dry_run else queries.looks_like_dry_run(request, self._gate.secret)
        return await self._take(body, fields, received_at, give_up_at, is_dry_run=is_dry_run, unclear=unclear)

    async def owners_alert(self, text: bytes, *, is_dry_run: bool) -> Response:
        """An alert that the owner wrote on the page: as if TradingView had sent it.

        But for one that is tried only and not understood: it has its answer on the page, and no row.
        """
        give_up_at = asyncio.get_running_loop().time() + REPLY_SECONDS
        return await self._take(
            text, json_fields(text), self._gate.clock(), give_up_at, is_dry_run=is_dry_run, by_hand=True
        )

    async def _take(
        self,
        body: bytes,
        fields: Any,
        received_at: datetime,
        give_up_at: float,
        *,
        is_dry_run: bool,
        by_hand: bool = False,
        unclear: AlertError | None = None,
    ) -> Response:
        key = alert_key(body, self._gate.secret)
        try:
            if unclear:
                raise unclear
            alert = self._alert(parse_alert(body, self._gate.secret, fields), key, received_at)
        except AlertError as exc:
            if is_dry_run and by_hand:
                return json_reply(400, replies.dry_run_invalid(str(exc), exc.field))
            return await self._invalid(key, exc, received_at)
        if is_dry_run:
            preview = await self._trader.dry_run(alert)
            return json_reply(200, replies.dry_run_reply(alert.signal, alert.broker, preview))
        left = max(0.0, give_up_at - asyncio.get_running_loop().time())
        answer = await self._trader.handle(alert, left)
        return json_reply(*replies.webhook_reply(answer))

    def _alert(self, signal: Signal, key: str, received_at: datetime) -> Alert:
        broker, on = signal.broker or self._default_broker, self._gate.brokers
        signal = at_flattrade(signal) if broker == FLATTRADE.broker else signal
        account = self._gate.account_for(broker, signal.market)
        no_broker = no_market = ""
        if account not in on:
            names = dict.fromkeys(known.broker for known in on)
            if broker == FLATTRADE.broker and broker in names:
                no_market = f"{signal.symbol} means {account.market}; {broker} trades shares only"
            elif broker in names:
                setting = MARKET_SETTINGS.get(broker, "BINANCE_MARKET")
                no_market = (
                    f"this alert for {signal.symbol} means {account.market}, which is off at {broker}; see {setting}"
                )
            else:
                no_broker = f"Broker not configured: {broker}; configured: {', '.join(names)}"
        return Alert(signal, key, account, received_at, broker_problem=no_broker, market_problem=no_market)

    async def _invalid(self, key: str, exc: AlertError, received_at: datetime) -> Response:
        try:
            record = await self._trader.refuse_invalid(key, str(exc), exc.field, received_at)
        except JournalError as error:
            self._gate.engine.journal_problem = str(error)
            return json_reply(503, error_body("the journal cannot be written; nothing was placed"))
        return json_reply(400, replies.invalid_reply(record, exc.field))
