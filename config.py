"""The settings: names, defaults, meanings, and the rules that compare them with each other.

`Settings` holds values and knows nothing of the machine; setting_sources.py reads them, setting_values.py judges each
alone. A secret's value never appears in a message, a repr or a dump.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models import Market, plain
from services import addresses, tokens
from setting_values import (
    MIN_SECRET_CHARACTERS,
    Confidence,
    Count,
    ExchangeKey,
    Leverage,
    Money,
    MoneyOrZero,
    Percent,
    Switch,
    Url,
    check_client_id,
    check_folder,
    check_host,
    check_networks,
    check_notify_urls,
    check_strategies,
    check_symbols,
    check_webhook_secret,
    is_easy_to_guess,
    is_loopback,
    one_of,
    whole_number,
)

MIN_PASSWORD_CHARACTERS = 10
WEEK_SECONDS = 7 * 24 * 3600
# TradingView's last resend comes 15 s after the first alert; a shorter memory would let it pass as a new one.
MIN_DEDUPE_SECONDS = 20

ALIASES = {"BINANCE_TESTNET": ("USE_TESTNET", "BINANCE_USE_TESTNET")}
BROKERS = ("PAPER", "BINANCE", "BINANCE_REAL", "BINGX", "FLATTRADE")
# The settings that belong together: a broker is configured when all of its group are set.
KEYS = {
    "BINANCE": ("binance_api_key", "binance_api_secret"),
    "BINANCE_REAL": ("binance_real_api_key", "binance_real_api_secret"),
    "BINGX": ("bingx_api_key", "bingx_secret_key"),
    "FLATTRADE": ("flattrade_api_key", "flattrade_api_secret", "flattrade_client_id"),
}
# Which setting says what a broker trades.
MARKET_SETTINGS = {"BINGX": "BINGX_MARKET"}

Mode = Literal["PAPER", "TESTNET", "LIVE"]


class SettingsError(Exception):
    """The settings are not fit to start with; the text says everything that is wrong."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(["cannot start:", *(f"  - {mistake}" for mistake in self.mistakes)]))


# ---- the settings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was found around the settings when they were read."""

    on_railway: bool = False
    volume: str = ""  # where Railway's volume is mounted
    remarks: tuple[str, ...] = ()


class Settings(BaseSettings):
    """Every setting by its name in small letters. Made by `load_settings`; tests may make one from values."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)

    host: Annotated[str, BeforeValidator(check_host)] = Field(
        "127.0.0.1", description="Address to listen on; on Railway the default is 0.0.0.0."
    )
    port: Annotated[int, whole_number(1, 65535)] = Field(8000, description="Port to listen on.")
    log_dir: Annotated[Path, BeforeValidator(check_folder)] = Field(
        Path("logs"), description="Folder of the journal and the CSV files; on Railway the default is the volume."
    )
    webhook_secret_key: Annotated[SecretStr, BeforeValidator(check_webhook_secret)] | None = Field(
        None,
        description="Secret every alert must carry, at least 16 characters; needed as soon as exchange keys are set.",
    )
    dashboard_password: SecretStr | None = Field(
        None, description="Password of the page; empty = a link that works once is printed at the start."
    )
    session_secret: SecretStr | None = Field(
        None, description="Signs the logins of the page; empty = a restart ends them. `openssl rand -hex 24` makes one."
    )
    allowed_ips: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(check_networks)] = Field(
        (), description="Addresses or networks that may send alerts, comma separated; empty = all with the secret."
    )
    trusted_proxy_hops: Annotated[int, whole_number(0, 10)] = Field(
        0, description="How many proxies of yours stand in front and report the sender's address."
    )

    default_broker: Annotated[str, one_of(*BROKERS, upper=True)] = Field(
        "", description="Broker of alerts that name none; empty = PAPER without Binance keys, else BINANCE."
    )
    paper_balance_usdt: Money = Field(Decimal(1000), description="Balance in USDT that paper trading begins with.")
    binance_api_key: ExchangeKey | None = Field(
        None, description="API key of BINANCE: of the testnet, unless BINANCE_TESTNET is false."
    )
    binance_api_secret: ExchangeKey | None = Field(None, description="Secret that belongs to BINANCE_API_KEY.")
    binance_testnet: Switch = Field(
        True,
        description="true = BINANCE is the testnet, false = it trades real money; "
        "also read as USE_TESTNET and BINANCE_USE_TESTNET.",
    )
    binance_market: Annotated[Literal["spot", "futures", "both"], one_of("spot", "futures", "both")] = Field(
        "spot",
        description="Markets that are on, of both Binance brokers and on paper: spot, futures (USDⓈ-M) or both.",
    )
    binance_margin_type: Annotated[Literal["isolated", "crossed"], one_of("isolated", "crossed")] = Field(
        "isolated",
        description="Margin of futures entries: isolated = a position can lose its own, crossed = the whole wallet.",
    )
    binance_real_api_key: ExchangeKey | None = Field(
        None, description="API key of BINANCE_REAL, which always trades real money."
    )
    binance_real_api_secret: ExchangeKey | None = Field(
        None, description="Secret that belongs to BINANCE_REAL_API_KEY."
    )
    binance_api_url: Url | None = Field(
        None, description="Other spot server for BINANCE, like http://127.0.0.1:9000/api."
    )
    binance_futures_api_url: Url | None = Field(
        None, description="Other futures server for BINANCE, like http://127.0.0.1:9000/fapi."
    )
    binance_real_api_url: Url | None = Field(None, description="Other spot server for BINANCE_REAL.")
    binance_real_futures_api_url: Url | None = Field(None, description="Other futures server for BINANCE_REAL.")
    bingx_api_key: ExchangeKey | None = Field(None, description="API key of BINGX.")
    bingx_secret_key: ExchangeKey | None = Field(None, description="Secret that belongs to BINGX_API_KEY.")
    bingx_demo: Switch = Field(
        True, description="true = BINGX trades virtual money (VST), false = it trades real money; spot has no demo."
    )
    bingx_market: Annotated[Literal["swap", "spot"], one_of("swap", "spot")] = Field(
        "swap", description="Market of BINGX: swap (USDT-M perpetual) or spot."
    )
    bingx_margin_type: Annotated[Literal["isolated", "crossed"], one_of("isolated", "crossed")] = Field(
        "isolated", description="Margin of swap entries at BINGX: isolated or crossed, as BINANCE_MARGIN_TYPE."
    )
    bingx_api_url: Url | None = Field(None, description="Other server for BINGX, like http://127.0.0.1:9001.")
    flattrade_api_key: ExchangeKey | None = Field(
        None, description="API key of FLATTRADE, which always trades real money, in INR."
    )
    flattrade_api_secret: ExchangeKey | None = Field(None, description="Secret that belongs to FLATTRADE_API_KEY.")
    flattrade_client_id: Annotated[str, BeforeValidator(check_client_id)] | None = Field(
        None, description="Client id at FlatTrade, of the account that trades."
    )
    flattrade_api_url: Url | None = Field(
        None, description="Other server for FLATTRADE, like http://127.0.0.1:9000/PiConnectAPI."
    )
    flattrade_auth_url: Url | None = Field(None, description="Other login server for FLATTRADE.")

    min_confidence: Confidence = Field(Decimal(50), description="Alerts with less confidence are refused, 0 to 100.")
    default_confidence: Confidence = Field(Decimal(100), description="Confidence of alerts that carry none, 0 to 100.")
    min_balance_usdt: MoneyOrZero = Field(
        Decimal(10), description="No entry while the free balance in USDT is below this; 0 = off."
    )
    max_risk_per_trade: Money = Field(
        Decimal(10), description="Largest entry, in USDT; of futures the largest margin of one."
    )
    trade_amount_usdt: Money = Field(
        Decimal(10), description="Size in USDT of alerts that carry none; of futures the position, not its margin."
    )
    capital_allocation_percent: Percent | None = Field(
        None,
        description="Size of alerts that carry none, in percent of the free balance (of futures: as margin); "
        "before TRADE_AMOUNT_USDT.",
    )
    max_open_trades: Count = Field(3, description="Most entries held at once; each counts until it is sold.")
    max_trades_per_day: Count = Field(10, description="Most entries in a UTC day.")
    max_daily_loss_usdt: Money | None = Field(
        None, description="No more entries once a UTC day's realised loss in USDT has reached this; empty = off."
    )
    cooldown_seconds: Annotated[int, whole_number(0, WEEK_SECONDS)] = Field(
        60, description="Pause before the same action on the same symbol is taken again; 0 = off."
    )
    max_signal_age_seconds: Annotated[int, whole_number(1, WEEK_SECONDS)] = Field(
        60, description="Entries of alerts that fired longer ago are refused, where the alert carries its firing time."
    )
    dedupe_seconds: Annotated[int, whole_number(MIN_DEDUPE_SECONDS, WEEK_SECONDS)] = Field(
        60, description="The same alert again within this time is a duplicate; at least 20."
    )
    allowed_symbols: Annotated[tuple[str, ...], BeforeValidator(check_symbols)] = Field(
        (), description="Symbols that may be entered, comma separated; empty = all."
    )
    allowed_strategies: Annotated[tuple[str, ...], BeforeValidator(check_strategies)] = Field(
        (), description="Strategies that may trade, comma separated; empty = all."
    )
    direction: Annotated[Literal["long", "short", "both"], one_of("long", "short", "both")] = Field(
        "both", description="Entries to take: long, short or both; spot has only long ones."
    )
    leverage: Leverage = Field(1, description="Leverage of futures entries whose alert names none.")
    max_leverage: Leverage = Field(
        10, description="Largest leverage of a futures entry; an alert that asks for more is refused."
    )
    stop_loss_percent: Percent | None = Field(
        None, description="Stop-loss of entries whose alert names none, in percent of their price; empty = off."
    )
    take_profit_percent: Percent | None = Field(
        None,
        description="Take-profit of entries whose alert names none, in percent of their price; empty = off.",
    )
    trailing_stop_percent: Percent | None = Field(
        None,
        description="Trailing stop of entries whose alert names none, in percent of the best price; empty = off.",
    )
    flattrade_min_balance: MoneyOrZero = Field(
        Decimal(1000), description="As MIN_BALANCE_USDT, for FLATTRADE and in INR."
    )
    flattrade_max_risk_per_trade: Money = Field(
        Decimal(1000), description="As MAX_RISK_PER_TRADE, for FLATTRADE and in INR."
    )
    flattrade_trade_amount: Money = Field(Decimal(1000), description="As TRADE_AMOUNT_USDT, for FLATTRADE and in INR.")
    notify_urls: Annotated[SecretStr, BeforeValidator(check_notify_urls)] | None = Field(
        None,
        description="Where to send messages to you: apprise addresses like tgram://… or mailto://…, comma separated.",
    )

    surroundings: Surroundings = Field(Surroundings(), exclude=True, repr=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_settings` reads in place of the ready-made sources: they skip a broken line of `.env` in silence, read
        # `$` in a password as a variable, and do not tell under which of its names a value came.
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_not_set(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value is not None and value != ""}

    @model_validator(mode="after")
    def _agree_with_each_other(self) -> Self:
        if contradictions := [found for rule in _RULES for found in rule(self)]:
            raise Contradictory(contradictions)
        return self

    def is_set(self, name: str) -> bool:
        return getattr(self, name) not in (None, "", ())

    @property
    def brokers(self) -> tuple[str, ...]:
        """The brokers of this version that can be used: PAPER always, the others when their keys are set."""
        usable = (name for name in KEYS if all(map(self.is_set, KEYS[name])))
        return ("PAPER", *usable)

    def markets_of(self, broker: str) -> tuple[Market, ...]:
        """The markets of a broker that are on; paper goes with Binance."""
        if broker == "BINGX":
            return (Market.FUTURES,) if self.bingx_market == "swap" else (Market.SPOT,)
        if broker == "FLATTRADE":
            return (Market.SPOT,)  # shares
        return tuple(Market) if self.binance_market == "both" else (Market(self.binance_market),)

    @property
    def default_broker_name(self) -> str:
        # BINANCE_REAL is never a default by itself: real money is asked for by name.
        return self.default_broker or ("BINANCE" if "BINANCE" in self.brokers else "PAPER")

    @property
    def paper_only(self) -> bool:
        return self.brokers == ("PAPER",)

    def mode_of(self, broker: str) -> Mode:
        """Whether an order of this broker moves play money of ours, of the exchange, or the owner's own."""
        if broker not in BROKERS:
            raise ValueError(f"unknown broker {broker!r}")
        if broker == "PAPER":
            return "PAPER"
        plays = (broker == "BINANCE" and self.binance_testnet) or (broker == "BINGX" and self.bingx_demo)
        return "TESTNET" if plays else "LIVE"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret's value, longest first, so that hiding one does not leave the rest of a longer one behind."""
        values = [value.get_secret_value() for _, value in self if isinstance(value, SecretStr)]
        parts = [part for address in self.notify_addresses for part in tokens(address)]
        return tuple(sorted({value for value in [*values, *parts] if value}, key=lambda value: (-len(value), value)))

    @property
    def notify_addresses(self) -> tuple[str, ...]:
        return addresses(self.notify_urls.get_secret_value()) if self.notify_urls else ()

    @property
    def loses_records(self) -> str:
        """A loud warning when the journal would be gone with the next deployment, else nothing."""
        around = self.surroundings
        if not around.on_railway:
            return ""
        if not around.volume:
            return (
                "RECORDS WILL BE LOST: this runs on Railway without a volume. Every deployment and restart forgets all "
                "trades, limits and open orders. Attach a volume to this service before you trade."
            )
        if not Path(os.path.abspath(self.log_dir)).is_relative_to(os.path.abspath(around.volume)):
            return (
                f"RECORDS WILL BE LOST: LOG_DIR is {self.log_dir}, outside of the volume at {around.volume}. "
                "Every deployment forgets all trades, limits and open orders. Remove LOG_DIR or put it on the volume."
            )
        return ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the owner should know, and need not stop the start."""
        return (*self.surroundings.remarks, *_unwise(self))


SETTING_FIELDS = tuple(name for name in Settings.model_fields if name != "surroundings")
SETTING_NAMES = tuple(name.upper() for name in SETTING_FIELDS)
FIELD_OF = {name: name.lower() for name in SETTING_NAMES} | {
    alias: name.lower() for name, aliases in ALIASES.items() for alias in aliases
}


# ---- settings compared with each other


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, and the settings that it is about."""

    fields: tuple[str, ...]
    text: str


class Contradictory(ValueError):
    def __init__(self, found: list[Mistake]) -> None:
        super().__init__("; ".join(contradiction.text for contradiction in found))
        self.found = found


_Found = Iterable[Mistake]


def _keys_come_together(settings: Settings) -> _Found:
    for fields in KEYS.values():
        given = [name.upper() for name in fields if settings.is_set(name)]
        missing = [name.upper() for name in fields if not settings.is_set(name)]
        if given and missing:
            yield Mistake(fields, f"{' and '.join(missing)} must be set too, because {' and '.join(given)} is")


def _exchange_keys_need_a_secret(settings: Settings) -> _Found:
    given = [name for fields in KEYS.values() for name in fields if settings.is_set(name)]
    if given and not settings.webhook_secret_key:
        wanted = f"must be set to at least {MIN_SECRET_CHARACTERS} characters"
        yield Mistake(("webhook_secret_key",), f"WEBHOOK_SECRET_KEY {wanted}, because exchange keys are set")


def _default_broker_is_usable(settings: Settings) -> _Found:
    name = settings.default_broker
    if name and name not in settings.brokers:
        keys = " and ".join(field.upper() for field in KEYS[name])
        yield Mistake(("default_broker", *KEYS[name]), f"DEFAULT_BROKER is {name}, which needs {keys} to be set")


def _leverage_fits_its_limit(settings: Settings) -> _Found:
    if settings.leverage > settings.max_leverage:
        text = f"{_told(settings, 'leverage')} must not be above {_told(settings, 'max_leverage')}"
        yield Mistake(("leverage", "max_leverage"), text)


def _testnet_is_not_the_real_exchange(settings: Settings) -> _Found:
    for name in ("binance_api_url", "binance_futures_api_url"):
        host = urlsplit(getattr(settings, name) or "").hostname or ""
        real = re.search(r"(^|\.)binance\.(com|us)$", host) and not re.match("demo-|testnet", host)
        if settings.binance_testnet and real:
            what = f"{name.upper()} is the real exchange ({host}) while BINANCE_TESTNET is true"
            yield Mistake((name, "binance_testnet"), f"{what}: one of them must change")


def _demo_is_not_the_real_bingx(settings: Settings) -> _Found:
    host = urlsplit(settings.bingx_api_url or "").hostname or ""
    if settings.bingx_demo and re.search(r"(^|\.)bingx\.\w+$", host) and "vst" not in host:
        what = f"BINGX_API_URL is the real exchange ({host}) while BINGX_DEMO is true"
        yield Mistake(("bingx_api_url", "bingx_demo"), f"{what}: one of them must change")
    if "BINGX" in settings.brokers and settings.bingx_demo and settings.bingx_market == "spot" and not host:
        what = "BINGX_MARKET is spot, which has no demo, while BINGX_DEMO is true"
        yield Mistake(("bingx_market", "bingx_demo"), f"{what}: one of them must change")


def _spot_sells_its_coins_once(settings: Settings) -> _Found:
    both = settings.stop_loss_percent is not None and settings.trailing_stop_percent is not None
    if both and settings.binance_market != "futures":
        text = "STOP_LOSS_PERCENT and TRAILING_STOP_PERCENT must not both be set while spot is on: it takes one of them"
        yield Mistake(("stop_loss_percent", "trailing_stop_percent", "binance_market"), text)


_RULES: tuple[Callable[[Settings], _Found], ...] = (
    _exchange_keys_need_a_secret,
    _keys_come_together,
    _default_broker_is_usable,
    _leverage_fits_its_limit,
    _testnet_is_not_the_real_exchange,
    _demo_is_not_the_real_bingx,
    _spot_sells_its_coins_once,
)


def _told(settings: Settings, name: str) -> str:
    default = "" if name in settings.model_fields_set else ", the default"
    return f"{name.upper()} ({_shown(getattr(settings, name))}{default})"


def _shown(value: object) -> str:
    return plain(value) if isinstance(value, Decimal) else str(value)


def _unwise(settings: Settings) -> Iterable[str]:
    if settings.allowed_ips and not settings.trusted_proxy_hops:
        if settings.surroundings.on_railway:
            yield "ALLOWED_IPS is compared with the address of Railway's proxy: remove it, or every alert is refused"
        elif is_loopback(settings.host):
            yield (
                "ALLOWED_IPS is compared with the address that connects; "
                "with a proxy in front set TRUSTED_PROXY_HOPS=1, or every alert is refused"
            )
    if settings.surroundings.on_railway and is_loopback(settings.host):
        yield f"HOST is {settings.host}, which Railway cannot reach: remove HOST"
    if not settings.surroundings.on_railway and not is_loopback(settings.host):
        yield f"HOST is {settings.host}: alerts and their secret arrive unencrypted unless a proxy with TLS is in front"
    if settings.webhook_secret_key and is_easy_to_guess(settings.webhook_secret_key.get_secret_value()):
        yield "WEBHOOK_SECRET_KEY looks easy to guess: `openssl rand -hex 24` makes a better one"
    for name, fewest in (("dashboard_password", MIN_PASSWORD_CHARACTERS), ("session_secret", MIN_SECRET_CHARACTERS)):
        given = getattr(settings, name)
        if given and len(given.get_secret_value()) < fewest:
            yield f"{name.upper()} is shorter than {fewest} characters: whoever guesses it can trade"
    if settings.trade_amount_usdt > settings.max_risk_per_trade:
        sizes = f"{_told(settings, 'trade_amount_usdt')} is above {_told(settings, 'max_risk_per_trade')}"
        yield f"{sizes}: entries whose alert names no size of its own are refused"
    if settings.flattrade_trade_amount > settings.flattrade_max_risk_per_trade:
        amount, limit = _told(settings, "flattrade_trade_amount"), _told(settings, "flattrade_max_risk_per_trade")
        yield f"{amount} is above {limit}: FLATTRADE entries whose alert names no size of its own are refused"
    if settings.direction == "short" and not any(Market.FUTURES in settings.markets_of(b) for b in settings.brokers):
        yield "DIRECTION is short, and spot has no short entries: every entry is refused"
