"""Which leverage each futures symbol has, with one margin type for all: asked once, set only where it differs.

https://developers.binance.com/docs/derivatives/usds-margined-futures/account/rest-api/Symbol-Config and
.../trade/rest-api/Change-Initial-Leverage, .../trade/rest-api/Change-Margin-Type
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from binance.client import Client
from binance.exceptions import BinanceAPIException

from binance_link import CannotSend, listed
from broker import BrokerError
from reply_values import UNUSABLE

NO_NEED_TO_CHANGE_CODE = -4046


class Margin:
    """`ask` is the link's way to put a question; what it raises is raised here, too."""

    def __init__(self, client: Client, ask: Callable[..., Any], margin_type: str) -> None:
        self.margin_type = margin_type
        self._client, self._ask = client, ask
        self._leverages: dict[str, int] = {}  # of symbols that have our margin type
        self._locks: dict[str, threading.Lock] = {}

    def forget(self) -> None:
        self._leverages.clear()

    def prepare(self, symbol: str, leverage: Decimal) -> None:
        """The first order of a symbol pays for a question, and for what has to be changed; the others for nothing."""
        if leverage != int(leverage) or leverage < 1:
            raise CannotSend("leverage is a whole number from 1 on")
        with self._locks.setdefault(symbol, threading.Lock()):
            has = self._leverages.pop(symbol, None) or self._leverage_with_our_margin(symbol)
            if has != leverage:
                self._ask(self._client.futures_change_leverage, symbol=symbol, leverage=str(int(leverage)))
            # Only now: after an answer that was lost, what is set there has to be read again.
            self._leverages[symbol] = int(leverage)

    def _leverage_with_our_margin(self, symbol: str) -> int:
        try:
            rows = listed(self._ask(self._client.futures_symbol_config, symbol=symbol))
            margin_type, leverage = next((r["marginType"], int(r["leverage"])) for r in rows if r["symbol"] == symbol)
        except (StopIteration, *UNUSABLE) as exc:
            raise BrokerError(f"no usable word of the leverage of {symbol}: {exc!r}") from exc
        if margin_type != self.margin_type:
            self._set_margin_type(symbol)
        return leverage

    def _set_margin_type(self, symbol: str) -> None:
        try:
            self._ask(self._client.futures_change_margin_type, symbol=symbol, marginType=self.margin_type)
        except BinanceAPIException as exc:
            if exc.code != NO_NEED_TO_CHANGE_CODE:
                raise
