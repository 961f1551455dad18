"""Builds everything that runs from the settings: folder, journal, engine, brokers, CSV files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from broker import Broker
from config import MARKET_SETTINGS, Settings
from csv_logger import CsvFile
from csv_rows import SIGNALS_COLUMNS, TRADES_COLUMNS
from data_folder import DataFolder, FolderError
from events import Event
from journal import SIGNALS, TRADES, Journal
from ledger import OnWritten
from metrics import Metrics
from models import Account, Market
from notifier import Notifier
from orders import Patience
from paper_client import PaperClient
from paper_futures import PaperFutures
from pauses import Pauses
from preferences import LimitsInForce, limits_of
from risk import RiskEngine
from services import Service
from sessions import Sessions

if TYPE_CHECKING:
    from binance_link import BinanceLink
    from bingx_link import BingxLink
    from flattrade_token import FlatTradeLogin


FLATTRADE = Account("FLATTRADE", Market.SPOT)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Gatehouse:
    """Everything that runs, wired. `secret` is the one in force, whether given or made."""

    settings: Settings
    secret: str = field(repr=False)
    folder: DataFolder
    journal: Journal
    engine: RiskEngine
    brokers: Mapping[Account, Broker]
    csvs: Mapping[str, CsvFile]
    clock: Callable[[], datetime]
    patience: Patience
    started_at: datetime
    sessions: Sessions
    metrics: Metrics
    notifier: Notifier | None = None
    notice: str = ""  # what the owner should know of this start

    def tell(self, text: str) -> None:
        """A message to the owner, where there is a way to reach him."""
        if self.notifier:
            self.notifier.tell(text)

    @property
    def flattrade(self) -> FlatTradeLogin | None:
        """Its login of the day, where FlatTrade is configured."""
        return getattr(self.brokers.get(FLATTRADE), "login", None)

    def account_for(self, broker: str, market: Market | None) -> Account:
        """Where an alert goes that says so much. Without a market: spot, where that is on."""
        if market is None:
            spot, futures = Account(broker, Market.SPOT), Account(broker, Market.FUTURES)
            return futures if futures in self.brokers and spot not in self.brokers else spot
        return Account(broker, market)

    def label(self, account: Account) -> str:
        """The broker's name; of one with two markets, `BINANCE` and `BINANCE futures`."""
        return str(account) if Account(account.broker, Market.SPOT) in self.brokers else account.broker


def open_gatehouse(
    settings: Settings, clock: Callable[[], datetime] = utc_now, patience: Patience | None = None
) -> Gatehouse:
    """Locks the folder, opens the records and builds the brokers. Raises FolderError or JournalError."""
    started_at = clock()
    folder = DataFolder(settings.log_dir)
    journal = Journal(folder.journal_path)
    folder.refuse_to_forget(journal.last_number(SIGNALS))
    notice = _what_is_missing(folder, journal)
    csvs = {
        SIGNALS: _csv(settings.log_dir, SIGNALS, SIGNALS_COLUMNS, journal, clock),
        TRADES: _csv(settings.log_dir, TRADES, TRADES_COLUMNS, journal, clock),
    }
    for csv in csvs.values():
        csv.open()
    secret = _revealed(settings.webhook_secret_key) or folder.own_secret()
    notifier = _notifier(settings, secret, journal, clock)
    brokers = build_brokers(settings, Pauses(settings.log_dir), clock)
    metrics = Metrics(brokers, started_at)
    listeners = [metrics.written, *([notifier.written] if notifier else [])]
    engine = RiskEngine(journal, limits_of(settings), LimitsInForce(settings), _to_all(listeners))
    _refuse_to_mix(settings, journal, engine)
    _refuse_to_abandon(settings, brokers, engine)
    # Asked at every decision: what the last comparison of the clocks said holds at once, and no longer than that.
    engine.clock_problem = lambda account: brokers[account].clock_problem if account in brokers else ""
    journal.make_room()
    return Gatehouse(
        settings=settings,
        secret=secret,
        folder=folder,
        journal=journal,
        engine=engine,
        brokers=brokers,
        csvs=csvs,
        clock=clock,
        patience=patience or Patience(),
        started_at=started_at,
        sessions=Sessions(_revealed(settings.dashboard_password), _revealed(settings.session_secret), clock),
        metrics=metrics,
        notifier=notifier,
        notice=notice,
    )


def _what_is_missing(folder: DataFolder, journal: Journal) -> str:
    """Of a restored backup, or of a journal without its latest part; before the CSV files are made equal to it."""
    newest = folder.newest_signal()
    if not newest or journal.knows(newest):
        return ""
    return (
        f"the journal is older than signals.csv, which ends with {newest}: what was traded since is not known here; "
        "pause, compare with the exchange's app, close there by hand what is not shown here, resume"
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _notifier(settings: Settings, secret: str, journal: Journal, clock: Callable[[], datetime]) -> Notifier | None:
    services = [Service(address, number) for number, address in enumerate(settings.notify_addresses, 1)]
    if not services:
        return None
    return Notifier(services, settings.log_dir, (*settings.secrets, secret), journal.day, clock)


def _to_all(listeners: Sequence[OnWritten]) -> OnWritten:
    def tell(events: Sequence[Event]) -> None:
        for listener in listeners:
            listener(events)

    return tell


def _refuse_to_mix(settings: Settings, journal: Journal, engine: RiskEngine) -> None:
    """What was bought on the testnet must never be sold from the real account. Raises FolderError."""
    for name in settings.brokers:
        mode, before = settings.mode_of(name), journal.mode_of(name)
        held = any(p.is_open for p in engine.books.positions.values() if p.broker == name)
        under_way = any(o.broker == name for o in engine.books.orders.values())
        if before not in (None, mode) and (held or under_way):
            raise FolderError(
                f"{name} is {mode} now, but {settings.log_dir} remembers what {before} holds: "
                f"give {mode} a LOG_DIR of its own, or go back to {before} and POST /close-all first"
            )
        if before != mode:
            journal.set_mode(name, mode)


def _refuse_to_abandon(settings: Settings, brokers: Mapping[Account, Broker], engine: RiskEngine) -> None:
    """An order under way can only be seen through with its broker's keys, on its market. Raises FolderError."""
    for order in engine.books.orders.values():
        if order.account in brokers:
            continue
        is_gone, back = "has no keys any more", "put the keys back"
        if order.broker in settings.brokers:
            setting = MARKET_SETTINGS.get(order.broker, "BINANCE_MARKET")
            is_gone, back = f"does not trade {order.market} any more", f"set {setting} back"
        raise FolderError(
            f"{order.broker} {is_gone}, but its order {order.client_order_id} ({order.instrument}) has not "
            f"ended: {back} until it has, or give this start a LOG_DIR of its own"
        )


def _csv(folder: Path, file: str, columns: tuple[str, ...], journal: Journal, clock: Callable[[], datetime]) -> CsvFile:
    return CsvFile(
        folder / f"{file}.csv",
        columns,
        rows_after=lambda number: journal.rows_after(file, number),
        clock=clock,
        last_number=lambda: journal.last_number(file),
    )


def build_brokers(settings: Settings, pauses: Pauses, clock: Callable[[], datetime] = utc_now) -> dict[Account, Broker]:
    """Only what is configured. An exchange's library is imported only when there are keys for it."""
    brokers: list[Broker] = []
    for name in settings.brokers:
        for market in settings.markets_of(name):
            if name == "PAPER":
                paper = PaperClient if market is Market.SPOT else PaperFutures
                brokers.append(paper(settings.paper_balance_usdt))
            elif name in ("BINANCE", "BINANCE_REAL"):
                brokers.append(_binance(settings, name, market, pauses))
            elif name == "BINGX":
                brokers.append(_bingx(settings, market, pauses))
            elif name == "FLATTRADE":
                brokers.append(_flattrade(settings, clock))
    return {broker.account: broker for broker in brokers}


def _flattrade(settings: Settings, clock: Callable[[], datetime]) -> Broker:
    """Shares: whatever markets are on elsewhere."""
    from flattrade_client import FlatTradeClient
    from flattrade_token import FlatTradeLogin

    key, secret = _revealed(settings.flattrade_api_key) or "", _revealed(settings.flattrade_api_secret) or ""
    client_id, auth_url = settings.flattrade_client_id or "", settings.flattrade_auth_url or ""
    login = FlatTradeLogin(key, secret, client_id, settings.log_dir, clock, auth_url)
    return FlatTradeClient(login, client_id, clock, settings.flattrade_api_url or "")


def _binance(settings: Settings, name: str, market: Market, pauses: Pauses) -> Broker:
    def given(setting: str) -> Any:
        return getattr(settings, f"{name.lower()}_{setting}")

    key, secret = given("api_key").get_secret_value(), given("api_secret").get_secret_value()
    testnet = settings.mode_of(name) == "TESTNET"
    if market is Market.SPOT:
        from binance_client import BinanceClient

        spot = BinanceClient(name, key, secret, testnet=testnet, api_url=given("api_url") or "")
        _remember_pauses(spot, pauses)
        return spot
    from binance_futures import BinanceFutures

    url, margin = given("futures_api_url") or "", settings.binance_margin_type.upper()
    futures = BinanceFutures(name, key, secret, testnet=testnet, api_url=url, margin_type=margin)
    _remember_pauses(futures, pauses)
    return futures


def _bingx(settings: Settings, market: Market, pauses: Pauses) -> Broker:
    key, secret = _revealed(settings.bingx_api_key) or "", _revealed(settings.bingx_secret_key) or ""
    url = settings.bingx_api_url or ""
    if market is Market.SPOT:
        from bingx_spot import BingxSpot

        spot = BingxSpot(key, secret, demo=settings.bingx_demo, api_url=url)
        _remember_closed_paths(spot, pauses)
        return spot
    from bingx_client import BingxSwap

    margin = settings.bingx_margin_type.upper()
    swap = BingxSwap(key, secret, demo=settings.bingx_demo, api_url=url, margin_type=margin)
    _remember_closed_paths(swap, pauses)
    return swap


def _remember_pauses(broker: BinanceLink, pauses: Pauses) -> None:
    """As long as it asked an earlier process for it; what it asks this one for is kept for the next."""
    broker.leave_alone_for(pauses.left(broker.account))
    broker.on_pause = lambda seconds: pauses.keep(broker.account, seconds)


def _remember_closed_paths(broker: BingxLink, pauses: Pauses) -> None:
    """As `_remember_pauses`, of an exchange that closes single paths, too."""
    for path in ("", *pauses.paths(broker.account)):
        broker.leave_alone_for(pauses.left(broker.account, path), path)
    broker.on_pause = lambda seconds, path: pauses.keep(broker.account, seconds, path)
