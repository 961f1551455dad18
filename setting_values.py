"""One setting's value: text in, value out, or a sentence that says what is wanted. A secret is never repeated."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, SecretStr

from models import plain
from services import addresses, is_understood

MIN_SECRET_CHARACTERS = 16
MAX_SERVICES = 10  # each has a thread and a queue of its own


class Wrong(ValueError):
    """What is wanted of a value. `hide_value`: what was seen may hold a secret."""

    def __init__(self, wanted: str, *, hide_value: bool = False) -> None:
        super().__init__(wanted)
        self.hide_value = hide_value


def _text(value: object) -> str:
    return plain(value) if isinstance(value, Decimal) else str(value).strip()


def whole_number(low: int, high: int | None = None) -> BeforeValidator:
    wanted = f"must be a whole number {f'of {low} or more' if high is None else f'from {low} to {high}'}"

    def check(value: object) -> int:
        text = _text(value)
        # Digits only: int() would also take "1_0" and digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise Wrong(wanted)
        number = int(text)
        if number < low or (high is not None and number > high):
            raise Wrong(wanted)
        return number

    return BeforeValidator(check)


def number(wanted: str, accept: Callable[[Decimal], bool]) -> BeforeValidator:
    def check(value: object) -> Decimal:
        text = _text(value)
        # Plain digits only: Decimal() would also take "NaN", "Infinity" and "1e9".
        if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text) or not accept(Decimal(text)):
            raise Wrong(wanted)
        return Decimal(text)

    return BeforeValidator(check)


def one_of(*choices: str, upper: bool = False) -> BeforeValidator:
    wanted = f"must be {', '.join(choices[:-1])} or {choices[-1]}"

    def check(value: object) -> str:
        text = _text(value).upper() if upper else _text(value).lower()
        if text not in choices:
            raise Wrong(wanted)
        return text

    return BeforeValidator(check)


def _check_switch(value: object) -> bool:
    text = _text(value).lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise Wrong("must be true or false")


def _items(value: object, wanted: str) -> tuple[str, ...]:
    """A comma list without its blanks. A list of nothing is refused, because an empty setting means: all."""
    parts = value.split(",") if isinstance(value, str) else [str(item) for item in value]  # type: ignore[attr-defined]
    items = tuple(dict.fromkeys(item.strip() for item in parts if item.strip()))
    if parts and not items:
        raise Wrong(wanted)
    return items


def check_folder(value: object) -> Path:
    folder = _text(value)
    # Taken as it stands it would be a folder of that very name, and the owner would look elsewhere for his records.
    if folder.startswith(("~", "$")):
        raise Wrong("must be written out, without the ~ or $ that only a shell understands")
    return Path(folder)


def check_client_id(value: object) -> str:
    client = _text(value)
    # It stands in every request, and no request is ever written by it.
    if not re.fullmatch(r"[A-Za-z0-9]{1,20}", client):
        raise Wrong("must be letters and digits, as FlatTrade shows it")
    return client


def check_symbols(value: object) -> tuple[str, ...]:
    wanted = "must be a comma list of symbols like BTCUSDT,ETHUSDT"
    symbols = tuple(re.sub("[/_-]", "", item).upper() for item in _items(value, wanted))
    if not all(re.fullmatch("(BSE:)?[A-Z0-9&]+", symbol) for symbol in symbols):
        raise Wrong(wanted)
    return tuple(dict.fromkeys(symbols))


def check_strategies(value: object) -> tuple[str, ...]:
    return _items(value, "must be a comma list of strategy names")


def check_networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    wanted = "must be a comma list of addresses or networks like 52.89.214.238,10.0.0.0/8"
    try:
        return tuple(ip_network(item) for item in _items(value, wanted))
    except ValueError as exc:
        raise Wrong(wanted) from exc


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def check_host(value: object) -> str:
    host = _text(value)
    if not _is_address(host) and not re.fullmatch(r"(?=.{1,253}$)[A-Za-z]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
        raise Wrong("must be an address to listen on like 127.0.0.1 or 0.0.0.0")
    return host


def _check_url(value: object) -> str:
    url = _text(value)
    if "@" in url or "?" in url or "#" in url:
        raise Wrong("must be an address without user, password and query", hide_value=True)
    wanted = "must be an https:// address (plain http:// only to this machine)"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as exc:
        raise Wrong(wanted) from exc
    if not host or not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise Wrong(wanted)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise Wrong(wanted)
    return url.rstrip("/")


def _revealed(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


# What example files say, without case and signs. Nothing random contains any of these.
_PLACEHOLDERS = re.compile(
    "change(me|this|it)|replace(me|this|with)|placeholder|your(own|api|key|secret|webhook|password|token)"
    "|(secret|key|token|password)here|(insert|enter|put)your"
)
# What people type when they make one up: allowed, but told.
_EASY = re.compile("secret|password|webhook|trading|123456|abcdef|qwerty")


def _is_placeholder(secret: str) -> bool:
    return _PLACEHOLDERS.search(re.sub("[^a-z0-9]", "", secret.lower())) is not None


def is_easy_to_guess(secret: str) -> bool:
    return len(set(secret)) < 8 or _EASY.search(secret.lower()) is not None


def check_webhook_secret(value: object) -> SecretStr:
    secret = _revealed(value)
    if not re.fullmatch(r"[ -~]+", secret):
        raise Wrong("must be made of plain letters, digits and signs (printable ASCII)")
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise Wrong(f"must be at least {MIN_SECRET_CHARACTERS} characters, had {len(secret)}")
    if _is_placeholder(secret):
        raise Wrong("must be a secret of your own (`openssl rand -hex 24` makes one), was a placeholder")
    return SecretStr(secret)


def _check_exchange_key(value: object) -> SecretStr:
    key = _revealed(value)
    if not re.fullmatch(r"[!-~]+", key):
        raise Wrong("must be made of printable ASCII characters without blanks")
    if _is_placeholder(key):
        raise Wrong("must be the key that the exchange gave you, was a placeholder")
    return SecretStr(key)


def check_notify_urls(value: object) -> SecretStr:
    text = _revealed(value)
    found = addresses(text)
    if len(found) > MAX_SERVICES:
        raise Wrong(f"must be at most {MAX_SERVICES} addresses, were {len(found)}")
    unknown = [str(number) for number, address in enumerate(found, 1) if not is_understood(address)]
    if unknown or not found:
        # Which one is told by its place: the address itself holds tokens.
        which = f"; of {len(found)}, not understood: number {', '.join(unknown)}" if unknown else ""
        raise Wrong(f"must be addresses as https://github.com/caronc/apprise/wiki lists them{which}")
    return SecretStr(text)


Switch = Annotated[bool, BeforeValidator(_check_switch)]
Money = Annotated[Decimal, number("must be a number above 0, like 12.5", lambda n: n > 0)]
MoneyOrZero = Annotated[Decimal, number("must be a number of 0 or more, like 12.5", lambda n: n >= 0)]
Confidence = Annotated[Decimal, number("must be a number from 0 to 100, like 12.5", lambda n: 0 <= n <= 100)]
Percent = Annotated[Decimal, number("must be a number above 0 and at most 100, like 12.5", lambda n: 0 < n <= 100)]
Count = Annotated[int, whole_number(1)]
Leverage = Annotated[int, whole_number(1, 150)]
Url = Annotated[str, BeforeValidator(_check_url)]
ExchangeKey = Annotated[SecretStr, BeforeValidator(_check_exchange_key)]
