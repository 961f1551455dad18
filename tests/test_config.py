"""Settings: what is accepted, what is refused and in which words, and that no secret ever shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import SETTING_FIELDS, SETTING_NAMES, Settings, SettingsError
from models import Market
from setting_sources import judge_changes, load_settings

SECRET = "correct-horse-battery-9"
KEYS = {"BINANCE_API_KEY": "the-api-key", "BINANCE_API_SECRET": "the-api-secret", "WEBHOOK_SECRET_KEY": SECRET}
BINGX_KEYS = {"BINGX_API_KEY": "bingx-key", "BINGX_SECRET_KEY": "bingx-secret", "WEBHOOK_SECRET_KEY": SECRET}
REAL_KEYS = {"BINANCE_REAL_API_KEY": "real-key", "BINANCE_REAL_API_SECRET": "real-secret", "WEBHOOK_SECRET_KEY": SECRET}

Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Start with nothing but these variables, and this text as `.env`."""

    def load(file: str | bytes | None = None, **environment: str) -> Settings:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        path = tmp_path / ".env"
        if file is not None:
            path.write_bytes(file.encode() if isinstance(file, str) else file)
            path.chmod(0o600)
        return load_settings(path)

    return load


def mistakes(load: Load, *args: str | bytes, **environment: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(*args, **environment)
    return caught.value.mistakes


# ---- the whole


def test_nothing_set_is_paper_trading_on_this_machine_only(load: Load) -> None:
    settings = load()
    assert (settings.host, settings.port, settings.log_dir) == ("127.0.0.1", 8000, Path("logs"))
    assert settings.paper_only
    assert settings.brokers == ("PAPER",)
    assert settings.default_broker_name == "PAPER"
    assert settings.warnings == ()
    assert settings.loses_records == ""
    assert settings.secrets == ()


def test_all_mistakes_are_told_at_once_in_one_message(load: Load) -> None:
    with pytest.raises(SettingsError) as caught:
        load(WEBHOOK_SECRET_KEY="short-one", MAX_OPEN_TRADES="three", LEVERAGE="20", MAX_LEVERAGE="5")
    assert str(caught.value) == (
        "cannot start:\n"
        "  - WEBHOOK_SECRET_KEY must be at least 16 characters, had 9\n"
        "  - MAX_OPEN_TRADES must be a whole number of 1 or more, was 'three'\n"
        "  - LEVERAGE (20) must not be above MAX_LEVERAGE (5)"
    )


def test_a_wrong_value_is_not_also_blamed_for_contradicting_another(load: Load) -> None:
    found = mistakes(load, TRADE_AMOUNT_USDT="lots", MAX_RISK_PER_TRADE="5")
    assert found == ("TRADE_AMOUNT_USDT must be a number above 0, like 12.5, was 'lots'",)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        setattr(Settings(), "port", 1)  # noqa: B010, a plain assignment does not pass the type check


def test_settings_made_from_values_ignore_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9")
    assert Settings().port == 8000
    assert Settings(port=" ", binance_api_key=None, direction="") == Settings()
    assert Settings(port=9001, max_risk_per_trade=Decimal(20)).max_risk_per_trade == 20


def test_settings_made_from_values_follow_the_same_rules() -> None:
    with pytest.raises(ValidationError, match="must not be above"):
        Settings(leverage=11)
    with pytest.raises(ValidationError):
        Settings(**dict[str, Any](no_such_setting=1))


# ---- where values come from


def test_the_environment_goes_before_the_file(load: Load) -> None:
    settings = load("PORT=1111\nMAX_OPEN_TRADES=7\n", PORT="2222")
    assert (settings.port, settings.max_open_trades) == (2222, 7)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_value_is_the_same_as_none(load: Load, empty: str) -> None:
    assert load(f"PORT=1111\nMAX_OPEN_TRADES={empty}\n", PORT=empty, ALLOWED_SYMBOLS=empty).port == 1111
    assert load(**dict.fromkeys(SETTING_NAMES, empty)) == load()


def test_names_may_be_written_in_small_letters(load: Load) -> None:
    assert load("Max_Open_Trades=7", port="2222").port == 2222
    assert load("Max_Open_Trades=7").max_open_trades == 7
    assert load(port="1111", PORT="2222").port == 2222


def test_blanks_around_a_pasted_value_do_not_matter(load: Load) -> None:
    settings = load(**KEYS | {"BINANCE_API_KEY": " the-api-key\n"})
    assert settings.binance_api_key is not None
    assert settings.binance_api_key.get_secret_value() == "the-api-key"


def test_the_file_may_be_missing_or_not_wanted(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.setenv("PORT", "1234")
    assert load_settings(None).port == 1234


def test_the_file_is_read_as_people_write_it(load: Load) -> None:
    text = "\ufeffexport PORT=1111 # the port\r\n# mine\r\n\r\nDIRECTION='long'\r\nALLOWED_STRATEGIES=\"a, b\"\r\n"
    settings = load(text)
    assert (settings.port, settings.direction, settings.allowed_strategies) == (1111, "long", ("a", "b"))


def test_a_dollar_in_a_value_is_a_dollar(load: Load) -> None:
    secret = "abc${HOME}def$PATH-ghi"
    settings = load(f"WEBHOOK_SECRET_KEY={secret}\n", HOME="/home/me")
    assert settings.secrets == (secret,)


@pytest.mark.parametrize("alias", ["BINANCE_TESTNET", "USE_TESTNET", "BINANCE_USE_TESTNET"])
def test_the_testnet_switch_has_three_names(load: Load, alias: str) -> None:
    assert load(**{alias: "false"}).binance_testnet is False
    assert load(f"{alias}=false").binance_testnet is False
    assert mistakes(load, **{alias: "flase"}) == (f"{alias} must be true or false, was 'flase'",)


def test_two_names_of_one_setting_must_not_differ(load: Load) -> None:
    found = mistakes(load, BINANCE_TESTNET="true", USE_TESTNET="false")
    assert found == ("USE_TESTNET and BINANCE_TESTNET are the same setting and must not differ",)
    assert load(BINANCE_TESTNET="false", USE_TESTNET="false").binance_testnet is False


def test_the_environment_goes_before_the_file_whatever_the_name(load: Load) -> None:
    assert load("BINANCE_TESTNET=true", USE_TESTNET="false").binance_testnet is False
    assert load("USE_TESTNET=false", BINANCE_TESTNET="true").binance_testnet is True


# ---- a file that cannot be right


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("MAX_OPEN_TRADE", "MAX_OPEN_TRADES"),
        ("MAX_DAILY_LOSS", "MAX_DAILY_LOSS_USDT"),
        ("TRADE_AMOUNT", "TRADE_AMOUNT_USDT"),
        ("WEBHOOK_SECRET", "WEBHOOK_SECRET_KEY"),
        ("BINANCE_TEST_NET", "BINANCE_TESTNET"),
        ("max_open_trdaes", "MAX_OPEN_TRADES"),
        ("MAX_RISK", "MAX_RISK_PER_TRADE"),
        ("MAX_LOSS", "MAX_DAILY_LOSS_USDT"),
        ("STOP_LOSS", "STOP_LOSS_PERCENT"),
        ("MAX_SIGNAL_AGE", "MAX_SIGNAL_AGE_SECONDS"),
    ],
)
def test_a_misspelled_name_in_the_file_is_a_mistake(load: Load, typo: str, meant: str) -> None:
    (found,) = mistakes(load, f"{typo}=top-secret-1\n")
    assert found.startswith(f"{typo.upper()} in ")
    assert found.endswith(f"is not a setting; did you mean {meant}?")
    assert "top-secret-1" not in found


def test_foreign_names_in_the_file_are_nobodys_business(load: Load) -> None:
    load(
        "PATH=/bin\nTZ=UTC\nLOG_LEVEL=debug\nLOG=1\nSECRET_KEY=1\nAPI_KEY=1\nTELEGRAM_TOKEN=1\nPYTHONUNBUFFERED=1\nDATABASE_URL=x\n"
    )


def test_a_misspelled_name_in_the_environment_is_only_a_warning(load: Load) -> None:
    (warning,) = load(MAX_OPEN_TRADE="1").warnings
    assert warning.startswith("MAX_OPEN_TRADE in the environment is not a setting and is ignored")
    assert warning.endswith("did you mean MAX_OPEN_TRADES?")


@pytest.mark.parametrize("line", ["MAX_OPEN_TRADES 1", "MAX_OPEN_TRADES", "=1", "MAX_OPEN_TRADES: 1", "PORT='1"])
def test_a_line_that_cannot_be_read_is_a_mistake(load: Load, line: str) -> None:
    found = mistakes(load, f"# mine\n{line}\nDIRECTION=long\n")
    assert found[0].startswith("line 2 of ")
    assert found[0].endswith("must be NAME=value or a comment beginning with #")


def test_a_setting_that_the_file_sets_twice_is_a_mistake(load: Load) -> None:
    (found,) = mistakes(load, "MAX_OPEN_TRADES=1\nPORT=1\nMAX_OPEN_TRADES=9\n")
    assert found.startswith("MAX_OPEN_TRADES must be set only once, and line 3 of ")
    assert load("PORT=7\nPORT=7\n").port == 7


def test_a_file_that_is_not_text_is_a_mistake(load: Load) -> None:
    (found,) = mistakes(load, b"PORT=\xff\xfe\n")
    assert found.endswith("cannot be read: it is not UTF-8 text")


def test_a_file_that_cannot_be_opened_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


def test_a_value_of_two_lines_is_a_mistake(load: Load) -> None:
    found = mistakes(load, 'WEBHOOK_SECRET_KEY="first-line-of-it\nsecond-line-of-it"\n')
    assert found == ("WEBHOOK_SECRET_KEY must be one line of printable characters",)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True), (0o400, False)])
def test_a_file_that_others_can_read_is_warned_of(load: Load, tmp_path: Path, mode: int, warned: bool) -> None:
    load("PORT=1")
    (tmp_path / ".env").chmod(mode)
    assert [("chmod 600" in warning) for warning in load_settings(tmp_path / ".env").warnings] == [True] * warned


# ---- single values: the last good one and the first bad one

GOOD: list[tuple[str, str, Any]] = [
    ("PORT", "1", 1),
    ("PORT", "65535", 65535),
    ("HOST", "0.0.0.0", "0.0.0.0"),
    ("HOST", "::1", "::1"),
    ("HOST", "localhost", "localhost"),
    ("LOG_DIR", "/var/lib/x", Path("/var/lib/x")),
    ("LOG_DIR", "./~records", Path("~records")),
    ("MIN_CONFIDENCE", "0", 0),
    ("MIN_CONFIDENCE", "100", 100),
    ("DEFAULT_CONFIDENCE", "12.5", Decimal("12.5")),
    ("DEDUPE_SECONDS", "20", 20),
    ("DEDUPE_SECONDS", "604800", 604800),
    ("COOLDOWN_SECONDS", "0", 0),
    ("MAX_SIGNAL_AGE_SECONDS", "1", 1),
    ("MAX_OPEN_TRADES", "1", 1),
    ("MAX_TRADES_PER_DAY", "1", 1),
    ("MAX_RISK_PER_TRADE", "10.5", Decimal("10.5")),
    ("TRADE_AMOUNT_USDT", "0.00000001", Decimal("0.00000001")),
    ("PAPER_BALANCE_USDT", "1", 1),
    ("MIN_BALANCE_USDT", "0", 0),
    ("MAX_DAILY_LOSS_USDT", "0.1", Decimal("0.1")),
    ("CAPITAL_ALLOCATION_PERCENT", "100", 100),
    ("CAPITAL_ALLOCATION_PERCENT", "0.1", Decimal("0.1")),
    ("TRUSTED_PROXY_HOPS", "0", 0),
    ("TRUSTED_PROXY_HOPS", "1", 1),
    ("MAX_LEVERAGE", "150", 150),
    ("DIRECTION", "LONG", "long"),
    ("DIRECTION", "short", "short"),
    ("DEFAULT_BROKER", "paper", "PAPER"),
    ("BINGX_MARKET", "Spot", "spot"),
    ("BINANCE_TESTNET", "No", False),
    ("BINANCE_TESTNET", "1", True),
    ("BINANCE_TESTNET", "ON", True),
    ("ALLOWED_SYMBOLS", "btcusdt, ETH/USDT,SOL-USDT,,BTC_USDT,", ("BTCUSDT", "ETHUSDT", "SOLUSDT")),
    ("ALLOWED_SYMBOLS", "BAJAJ-AUTO,M&M,bse:cipla", ("BAJAJAUTO", "M&M", "BSE:CIPLA")),
    ("ALLOWED_STRATEGIES", "trend, ALSAPRO 1 ,trend", ("trend", "ALSAPRO 1")),
    ("ALLOWED_IPS", "52.89.214.238, 10.0.0.0/8,::1", tuple(map(ip_network, ("52.89.214.238", "10.0.0.0/8", "::1")))),
    ("BINANCE_API_URL", "http://127.0.0.1:9000/api", "http://127.0.0.1:9000/api"),
    ("BINANCE_API_URL", "http://localhost:9000/api/", "http://localhost:9000/api"),
    ("BINANCE_API_URL", "http://[::1]:9000/api", "http://[::1]:9000/api"),
    ("BINANCE_REAL_API_URL", "https://exchange.example/api", "https://exchange.example/api"),
]

WRITTEN_OUT = "must be written out, without the ~ or $ that only a shell understands"
WHOLE = "must be a whole number of 1 or more"
ABOVE_0 = "must be a number above 0, like 12.5"
CONFIDENCE = "must be a number from 0 to 100, like 12.5"
PERCENT = "must be a number above 0 and at most 100, like 12.5"
SYMBOLS = "must be a comma list of symbols like BTCUSDT,ETHUSDT"
NETWORKS = "must be a comma list of addresses or networks like 52.89.214.238,10.0.0.0/8"
HTTPS = "must be an https:// address (plain http:// only to this machine)"
BAD = [
    ("LOG_DIR", "~/records", WRITTEN_OUT),
    ("LOG_DIR", "$HOME/records", WRITTEN_OUT),
    ("PORT", "0", "must be a whole number from 1 to 65535"),
    ("PORT", "65536", "must be a whole number from 1 to 65535"),
    ("HOST", "http://0.0.0.0", "must be an address to listen on like 127.0.0.1 or 0.0.0.0"),
    ("HOST", "1.2.3", "must be an address to listen on like 127.0.0.1 or 0.0.0.0"),
    ("MIN_CONFIDENCE", "-1", CONFIDENCE),
    ("MIN_CONFIDENCE", "100.1", CONFIDENCE),
    ("DEFAULT_CONFIDENCE", "101", CONFIDENCE),
    ("DEDUPE_SECONDS", "19", "must be a whole number from 20 to 604800"),
    ("DEDUPE_SECONDS", "604801", "must be a whole number from 20 to 604800"),
    ("COOLDOWN_SECONDS", "-1", "must be a whole number from 0 to 604800"),
    ("MAX_SIGNAL_AGE_SECONDS", "0", "must be a whole number from 1 to 604800"),
    ("MAX_OPEN_TRADES", "0", WHOLE),
    ("MAX_OPEN_TRADES", "2.5", WHOLE),
    ("MAX_OPEN_TRADES", "1_0", WHOLE),
    ("MAX_OPEN_TRADES", "٣", WHOLE),
    ("MAX_OPEN_TRADES", "9" * 70, WHOLE),
    ("MAX_TRADES_PER_DAY", "0", WHOLE),
    ("MAX_RISK_PER_TRADE", "0", ABOVE_0),
    ("MAX_RISK_PER_TRADE", "-5", ABOVE_0),
    ("MAX_RISK_PER_TRADE", "NaN", ABOVE_0),
    ("MAX_RISK_PER_TRADE", "Infinity", ABOVE_0),
    ("MAX_RISK_PER_TRADE", "1e9", ABOVE_0),
    ("MAX_RISK_PER_TRADE", "10,5", ABOVE_0),
    ("TRADE_AMOUNT_USDT", "0.0", ABOVE_0),
    ("PAPER_BALANCE_USDT", "0", ABOVE_0),
    ("MIN_BALANCE_USDT", "-0.1", "must be a number of 0 or more, like 12.5"),
    ("CAPITAL_ALLOCATION_PERCENT", "100.01", PERCENT),
    ("TRUSTED_PROXY_HOPS", "-1", "must be a whole number from 0 to 10"),
    ("TRUSTED_PROXY_HOPS", "yes", "must be a whole number from 0 to 10"),
    ("LEVERAGE", "0", "must be a whole number from 1 to 150"),
    ("MAX_LEVERAGE", "151", "must be a whole number from 1 to 150"),
    ("DIRECTION", "up", "must be long, short or both"),
    ("DEFAULT_BROKER", "kraken", "must be PAPER, BINANCE, BINANCE_REAL, BINGX or FLATTRADE"),
    ("BINANCE_MARKET", "margin", "must be spot, futures or both"),
    ("BINANCE_TESTNET", "flase", "must be true or false"),
    ("ALLOWED_SYMBOLS", "BINANCE:BTCUSDT", SYMBOLS),
    ("ALLOWED_SYMBOLS", "BTCUSDT;ETHUSDT", SYMBOLS),
    # A list of nothing would otherwise mean: everything is allowed.
    ("ALLOWED_SYMBOLS", ",", SYMBOLS),
    ("ALLOWED_SYMBOLS", "-", SYMBOLS),
    ("ALLOWED_STRATEGIES", " , ", "must be a comma list of strategy names"),
    ("ALLOWED_IPS", ",", NETWORKS),
    ("ALLOWED_IPS", "tradingview.com", NETWORKS),
    ("ALLOWED_IPS", "10.0.0.1/8", NETWORKS),
    ("ALLOWED_IPS", "256.0.0.1", NETWORKS),
    ("BINANCE_API_URL", "http://exchange.example/api", HTTPS),
    ("BINANCE_API_URL", "http://127.0.0.1.exchange.example/api", HTTPS),
    ("BINANCE_API_URL", "http://127.0.0.1:99999/api", HTTPS),
    ("BINANCE_API_URL", "ftp://127.0.0.1/api", HTTPS),
    ("BINANCE_API_URL", "exchange.example", HTTPS),
    ("BINANCE_API_URL", "https://", HTTPS),
    ("BINANCE_API_URL", "https://exchange.example/a b", HTTPS),
    ("BINANCE_API_URL", "https://exchange.example\\x", HTTPS),
    ("BINANCE_REAL_API_URL", "http://0.0.0.0/api", HTTPS),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_value_is_taken(load: Load, name: str, text: str, value: Any) -> None:
    environment = {"MAX_DAILY_LOSS_USDT": "1", "TRADE_AMOUNT_USDT": "1", "MAX_RISK_PER_TRADE": "10"} | {name: text}
    assert getattr(load(**environment), name.lower()) == value


@pytest.mark.parametrize(("name", "text", "wanted"), BAD)
def test_a_bad_value_is_refused_and_told_with_what_is_wanted(load: Load, name: str, text: str, wanted: str) -> None:
    assert mistakes(load, **{name: text}) == (f"{name} {wanted}, was {text.strip()!r}",)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("MAX_DAILY_LOSS_USDT", ABOVE_0), ("CAPITAL_ALLOCATION_PERCENT", PERCENT), ("STOP_LOSS_PERCENT", PERCENT)],
)
def test_who_writes_0_for_off_is_told_how_it_is_switched_off(load: Load, name: str, wanted: str) -> None:
    assert mistakes(load, **{name: "0.0"}) == (f"{name} {wanted}, was '0.0'; to switch it off, leave it empty",)


def test_who_sends_0_for_off_while_it_runs_is_told_the_word(load: Load) -> None:
    _, (mistake,) = judge_changes(load(), {"stop_loss_percent": "0"})
    assert mistake.text == f"STOP_LOSS_PERCENT {PERCENT}, was '0'; to switch it off, say " + '"off"'


def test_a_very_long_value_is_not_repeated_in_full(load: Load) -> None:
    (found,) = mistakes(load, PORT="9" * 5000)
    assert len(found) < 200


# ---- secrets


@pytest.mark.parametrize("secret", ["0123456789-abcde", "~!@#$%^&*()_+ {}", SECRET, "a" * 12 + "bcde"])
def test_a_secret_of_16_characters_is_good(load: Load, secret: str) -> None:
    assert load(WEBHOOK_SECRET_KEY=secret).secrets == (secret,)


@pytest.mark.parametrize(
    ("secret", "wanted"),
    [
        ("abcdefghij12345", "must be at least 16 characters, had 15"),
        ("pässwörter-für-mich", "must be made of plain letters, digits and signs (printable ASCII)"),
    ]
    + [
        (placeholder, "must be a secret of your own (`openssl rand -hex 24` makes one), was a placeholder")
        for placeholder in (
            "change-me-please-now",
            "CHANGE_ME_CHANGE_ME",
            "your-secret-here-12345",
            "your_webhook_secret_key",
            "replace-this-secret-now",
            "put-your-secret-here",
        )
    ],
)
def test_a_weak_secret_is_refused_and_never_repeated(load: Load, secret: str, wanted: str) -> None:
    found = mistakes(load, WEBHOOK_SECRET_KEY=secret)
    assert found == (f"WEBHOOK_SECRET_KEY {wanted}",)


@pytest.mark.parametrize("secret", ["1234567890123456", "aaaaaaaaaaaaaaaa", "passwordpassword", "my-webhook-secret"])
def test_a_secret_that_is_easy_to_guess_is_allowed_but_told(load: Load, secret: str) -> None:
    (warning,) = load(WEBHOOK_SECRET_KEY=secret).warnings
    assert warning.startswith("WEBHOOK_SECRET_KEY looks easy to guess")
    assert secret not in warning


def test_a_random_secret_is_not_called_easy(load: Load) -> None:
    assert load(WEBHOOK_SECRET_KEY="c0a5b1f4e79d2e86").warnings == ()


@pytest.mark.parametrize("name", ["BINANCE_API_KEY", "BINANCE_API_SECRET"])
@pytest.mark.parametrize("key", ["your_api_key_here", "ключ-от-биржи", "two words"])
def test_a_key_that_cannot_be_one_is_refused_and_never_repeated(load: Load, name: str, key: str) -> None:
    (found,) = mistakes(load, **KEYS | {name: key})
    assert found.startswith(f"{name} must be ")
    assert key not in found


def test_no_secret_shows_in_any_form_of_the_settings(load: Load) -> None:
    canaries = {
        name: f"Canary-{number:02}-of-those-{len(name)}"
        for number, name in enumerate(
            name for name in SETTING_NAMES if name.endswith(("_KEY", "_SECRET", "_PASSWORD", "NOTIFY_URLS"))
        )
    }
    assert len(canaries) == 12
    canaries["NOTIFY_URLS"] = "json://Canary-host/"
    settings = load(**canaries, FLATTRADE_CLIENT_ID="me")
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json(), *settings.warnings]
    assert not [text for text in shown if "Canary" in text]
    assert set(settings.secrets) == {*canaries.values(), "Canary-host"}
    assert set(settings.model_dump()) == set(SETTING_FIELDS)


def test_no_secret_shows_when_something_is_wrong(load: Load) -> None:
    environment = {name: "Canary-secret-1 ü" for name in SETTING_NAMES if name.endswith(("_KEY", "_SECRET"))}
    with pytest.raises(SettingsError) as caught:
        load(**environment, NOTIFY_URLS="tgram://Canary", PORT="x", BINANCE_API_URL="https://me:Canary@host/api")
    assert "Canary" not in str(caught.value)
    with pytest.raises(ValidationError) as error:
        Settings(webhook_secret_key="Canary", binance_api_url="https://me:Canary@host/api")
    assert "Canary" not in str(error.value)


@pytest.mark.parametrize("url", ["https://me:token@host/api", "https://host/api?token=token", "https://host/#token"])
def test_an_address_with_something_secret_in_it_is_refused_and_never_repeated(load: Load, url: str) -> None:
    found = mistakes(load, BINANCE_API_URL=url)
    assert found == ("BINANCE_API_URL must be an address without user, password and query",)


def test_secrets_for_redaction_come_longest_first_and_every_notification_address_by_itself(load: Load) -> None:
    settings = load(**KEYS, NOTIFY_URLS="json://me:pass%20word@example.org/a,b/, discord://id/token")
    assert settings.secrets == (
        "json://me:pass%20word@example.org/a,b/, discord://id/token",
        "json://me:pass%20word@example.org/a,b/",
        SECRET,
        "discord://id/token",
        "the-api-secret",
        "pass%20word",
        "the-api-key",
        "pass word",
    )


@pytest.mark.parametrize("urls", ["no://Canary1", "tgram://Canary", "Canary", "json://good/,tgram://Canary", ","])
def test_an_address_for_messages_that_apprise_does_not_understand_is_told_by_its_place(load: Load, urls: str) -> None:
    (found,) = mistakes(load, NOTIFY_URLS=urls)
    assert found.startswith("NOTIFY_URLS must be addresses as https://github.com/caronc/apprise/wiki lists them")
    assert "Canary" not in found
    assert ("of 2, not understood: number 2" in found) is ("good" in urls)


def test_there_are_at_most_ten_addresses_for_messages(load: Load) -> None:
    urls = [f"json://host{number}/" for number in range(11)]
    assert len(load(NOTIFY_URLS=",".join(urls[:10])).notify_addresses) == 10
    assert mistakes(load, NOTIFY_URLS=" ".join(urls)) == ("NOTIFY_URLS must be at most 10 addresses, were 11",)


# ---- settings that must agree


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("BINANCE_API_KEY", "BINANCE_API_SECRET"),
        ("BINANCE_API_SECRET", "BINANCE_API_KEY"),
        ("BINANCE_REAL_API_KEY", "BINANCE_REAL_API_SECRET"),
        ("BINANCE_REAL_API_SECRET", "BINANCE_REAL_API_KEY"),
        ("BINGX_API_KEY", "BINGX_SECRET_KEY"),
        ("BINGX_SECRET_KEY", "BINGX_API_KEY"),
        ("FLATTRADE_API_KEY", "FLATTRADE_API_SECRET and FLATTRADE_CLIENT_ID"),
    ],
)
def test_a_key_needs_its_secret_and_the_other_way_round(load: Load, given: str, missing: str) -> None:
    found = mistakes(load, **{given: "the-key"}, WEBHOOK_SECRET_KEY=SECRET)
    assert found == (f"{missing} must be set too, because {given} is",)


@pytest.mark.parametrize("keys", [KEYS, REAL_KEYS, BINGX_KEYS])
def test_exchange_keys_need_a_webhook_secret(load: Load, keys: dict[str, str]) -> None:
    found = mistakes(load, **keys | {"WEBHOOK_SECRET_KEY": ""})
    assert found == ("WEBHOOK_SECRET_KEY must be set to at least 16 characters, because exchange keys are set",)


def test_a_weak_secret_is_told_once_when_keys_are_set(load: Load) -> None:
    found = mistakes(load, **KEYS | {"WEBHOOK_SECRET_KEY": "short"})
    assert found == ("WEBHOOK_SECRET_KEY must be at least 16 characters, had 5",)


@pytest.mark.parametrize(
    ("environment", "brokers", "default"),
    [
        ({}, ("PAPER",), "PAPER"),
        (KEYS, ("PAPER", "BINANCE"), "BINANCE"),
        (KEYS | {"DEFAULT_BROKER": "paper"}, ("PAPER", "BINANCE"), "PAPER"),
        (BINGX_KEYS, ("PAPER", "BINGX"), "PAPER"),
        (BINGX_KEYS | {"DEFAULT_BROKER": "bingx"}, ("PAPER", "BINGX"), "BINGX"),
        (KEYS | BINGX_KEYS, ("PAPER", "BINANCE", "BINGX"), "BINANCE"),
        # Real money is never a default that nobody asked for.
        (REAL_KEYS, ("PAPER", "BINANCE_REAL"), "PAPER"),
        (KEYS | REAL_KEYS, ("PAPER", "BINANCE", "BINANCE_REAL"), "BINANCE"),
        (KEYS | REAL_KEYS | {"DEFAULT_BROKER": "BINANCE_REAL"}, ("PAPER", "BINANCE", "BINANCE_REAL"), "BINANCE_REAL"),
    ],
)
def test_the_keys_decide_which_brokers_there_are(
    load: Load, environment: dict[str, str], brokers: tuple[str, ...], default: str
) -> None:
    settings = load(**environment)
    assert (settings.brokers, settings.default_broker_name) == (brokers, default)
    assert settings.paper_only == (brokers == ("PAPER",))


def test_each_broker_has_its_own_markets(load: Load) -> None:
    settings = load(**KEYS | BINGX_KEYS, BINANCE_MARKET="both")
    assert settings.markets_of("BINGX") == (Market.FUTURES,)
    assert settings.markets_of("BINANCE") == settings.markets_of("PAPER") == (Market.SPOT, Market.FUTURES)
    spot = load(**KEYS | BINGX_KEYS, BINGX_MARKET="spot", BINGX_DEMO="false", BINANCE_MARKET="futures")
    assert (spot.markets_of("BINGX"), spot.markets_of("BINANCE")) == ((Market.SPOT,), (Market.FUTURES,))


@pytest.mark.parametrize(("demo", "mode"), [("", "TESTNET"), ("true", "TESTNET"), ("false", "LIVE")])
def test_bingx_trades_its_demo_unless_told_otherwise(load: Load, demo: str, mode: str) -> None:
    assert load(**BINGX_KEYS, BINGX_DEMO=demo).mode_of("BINGX") == mode


def test_bingx_spot_has_no_demo(load: Load) -> None:
    wanted = "BINGX_MARKET is spot, which has no demo, while BINGX_DEMO is true: one of them must change"
    assert mistakes(load, **BINGX_KEYS, BINGX_MARKET="spot") == (wanted,)
    assert load(**BINGX_KEYS, BINGX_MARKET="spot", BINGX_API_URL="http://127.0.0.1:9001").bingx_market == "spot"
    assert load(BINGX_MARKET="spot").bingx_market == "spot"  # without keys it says nothing yet


@pytest.mark.parametrize("host", ["open-api.bingx.com", "open-api.bingx.io", "open-api.bingx.pro"])
def test_the_demo_is_not_sent_to_the_real_bingx(load: Load, host: str) -> None:
    (mistake,) = mistakes(load, **BINGX_KEYS, BINGX_API_URL=f"https://{host}")
    assert mistake == f"BINGX_API_URL is the real exchange ({host}) while BINGX_DEMO is true: one of them must change"
    assert load(**BINGX_KEYS, BINGX_API_URL=f"https://{host}", BINGX_DEMO="false").mode_of("BINGX") == "LIVE"
    assert load(**BINGX_KEYS, BINGX_API_URL="https://open-api-vst.bingx.com").mode_of("BINGX") == "TESTNET"


def test_short_entries_need_a_market_that_has_them(load: Load) -> None:
    assert load(**BINGX_KEYS, DIRECTION="short").warnings == ()


@pytest.mark.parametrize(
    ("broker", "secret"), [("BINANCE", "API_SECRET"), ("BINANCE_REAL", "API_SECRET"), ("BINGX", "SECRET_KEY")]
)
def test_a_default_broker_without_keys_is_a_mistake(load: Load, broker: str, secret: str) -> None:
    found = mistakes(load, DEFAULT_BROKER=broker)
    assert found == (f"DEFAULT_BROKER is {broker}, which needs {broker}_API_KEY and {broker}_{secret} to be set",)


@pytest.mark.parametrize(
    ("environment", "broker", "mode"),
    [
        ({}, "PAPER", "PAPER"),
        (KEYS, "BINANCE", "TESTNET"),
        (KEYS | {"BINANCE_TESTNET": "false"}, "BINANCE", "LIVE"),
        (KEYS | {"BINANCE_TESTNET": "false"}, "PAPER", "PAPER"),
        (KEYS | REAL_KEYS | {"BINANCE_TESTNET": "true"}, "BINANCE_REAL", "LIVE"),
    ],
)
def test_the_mode_says_whose_money_it_is(load: Load, environment: dict[str, str], broker: str, mode: str) -> None:
    assert load(**environment).mode_of(broker) == mode


def test_the_mode_of_an_unknown_broker_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="unknown broker 'KRAKEN'"):
        Settings().mode_of("KRAKEN")


@pytest.mark.parametrize("host", ["api.binance.com", "api1.binance.com", "api.binance.us", "binance.com"])
def test_the_testnet_must_not_be_the_real_exchange(load: Load, host: str) -> None:
    (found,) = mistakes(load, **KEYS, BINANCE_API_URL=f"https://{host}/api")
    assert found.startswith(f"BINANCE_API_URL is the real exchange ({host}) while BINANCE_TESTNET is true")
    load(**KEYS, BINANCE_API_URL=f"https://{host}/api", BINANCE_TESTNET="false")


@pytest.mark.parametrize("host", ["testnet.binance.vision", "demo-api.binance.com", "notbinance.com"])
def test_a_test_server_of_ones_choice_is_fine(load: Load, host: str) -> None:
    assert load(**KEYS, BINANCE_API_URL=f"https://{host}/api").mode_of("BINANCE") == "TESTNET"


def test_a_usual_size_above_the_limit_is_told(load: Load) -> None:
    assert load(TRADE_AMOUNT_USDT="50", MAX_RISK_PER_TRADE="50").warnings == ()
    (warning,) = load(TRADE_AMOUNT_USDT="50.01", MAX_RISK_PER_TRADE="50").warnings
    assert warning.startswith("TRADE_AMOUNT_USDT (50.01) is above MAX_RISK_PER_TRADE (50)")


def test_a_minimum_confidence_above_the_default_one_is_allowed(load: Load) -> None:
    assert load(MIN_CONFIDENCE="90", DEFAULT_CONFIDENCE="10").min_confidence == 90


def test_spot_takes_either_a_stop_loss_or_a_trailing_stop(load: Load) -> None:
    both = {"STOP_LOSS_PERCENT": "2", "TRAILING_STOP_PERCENT": "1"}
    (mistake,) = mistakes(load, **both)
    assert mistake.startswith("STOP_LOSS_PERCENT and TRAILING_STOP_PERCENT must not both be set while spot is on")
    assert mistakes(load, **both, BINANCE_MARKET="both") == (mistake,)
    assert load(**both, BINANCE_MARKET="futures").trailing_stop_percent == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"FLATTRADE_TRADE_AMOUNT": "1000.01"},
            "FLATTRADE_TRADE_AMOUNT (1000.01) is above FLATTRADE_MAX_RISK_PER_TRADE",
        ),
        ({"DASHBOARD_PASSWORD": "x" * 9}, "DASHBOARD_PASSWORD is shorter than 10 characters"),
        ({"SESSION_SECRET": "x" * 15}, "SESSION_SECRET is shorter than 16 characters"),
        ({"DIRECTION": "short"}, "DIRECTION is short, and spot has no short entries"),
        ({"HOST": "0.0.0.0"}, "HOST is 0.0.0.0: alerts and their secret arrive unencrypted"),
        ({"ALLOWED_IPS": "10.0.0.1"}, "ALLOWED_IPS is compared with the address that connects; with a proxy"),
    ],
)
def test_what_need_not_stop_the_start_is_a_warning(load: Load, environment: dict[str, str], words: str) -> None:
    (warning,) = load(**environment, WEBHOOK_SECRET_KEY=SECRET).warnings
    assert warning.startswith(words)


def test_an_address_list_with_a_trusted_proxy_is_no_reason_to_warn(load: Load) -> None:
    assert load(ALLOWED_IPS="10.0.0.1", TRUSTED_PROXY_HOPS="1").warnings == ()


# ---- Railway

RAILWAY = {"RAILWAY_PROJECT_ID": "p", "PORT": "4321"}


@pytest.mark.parametrize("mark", ["RAILWAY_PROJECT_ID", "RAILWAY_ENVIRONMENT"])
def test_on_railway_it_listens_for_everybody_and_keeps_its_records_on_the_volume(load: Load, mark: str) -> None:
    settings = load(**{mark: "x"}, PORT="4321", RAILWAY_VOLUME_MOUNT_PATH="/data")
    assert (settings.host, settings.port, settings.log_dir) == ("0.0.0.0", 4321, Path("/data"))
    assert settings.loses_records == ""
    assert settings.warnings == ()


def test_on_railway_without_a_volume_the_owner_is_told_loudly(load: Load) -> None:
    settings = load(**RAILWAY)
    assert settings.log_dir == Path("logs")
    assert settings.loses_records.startswith("RECORDS WILL BE LOST: this runs on Railway without a volume")


@pytest.mark.parametrize(
    ("folder", "kept"),
    [("/data", True), ("/data/logs", True), ("/database", False), ("logs", False), ("/data/..", False)],
)
def test_on_railway_records_outside_of_the_volume_are_told_loudly(load: Load, folder: str, kept: bool) -> None:
    settings = load(**RAILWAY, RAILWAY_VOLUME_MOUNT_PATH="/data", LOG_DIR=folder)
    assert settings.log_dir == Path(folder)
    assert (settings.loses_records == "") is kept


def test_on_railway_what_the_owner_says_goes_before_what_is_usual_there(load: Load) -> None:
    settings = load("HOST=::", **RAILWAY)
    assert settings.host == "::"
    (warning,) = load("HOST=127.0.0.1", **RAILWAY).warnings
    assert "Railway cannot reach" in warning


def test_on_railway_an_address_list_is_warned_of(load: Load) -> None:
    (warning,) = load("", **RAILWAY, ALLOWED_IPS="10.0.0.1").warnings
    assert warning.startswith("ALLOWED_IPS is compared with the address of Railway's proxy")


def test_a_volume_alone_is_not_railway(load: Load) -> None:
    settings = load(RAILWAY_VOLUME_MOUNT_PATH="/data")
    assert (settings.host, settings.log_dir, settings.loses_records) == ("127.0.0.1", Path("logs"), "")


# ---- FlatTrade

FLATTRADE = {"FLATTRADE_API_KEY": "k" * 20, "FLATTRADE_API_SECRET": "s" * 20, "FLATTRADE_CLIENT_ID": "FT0001"}


def test_flattrade_is_there_when_all_three_are_set_and_trades_real_money(load: Load) -> None:
    settings = load(**FLATTRADE, WEBHOOK_SECRET_KEY=SECRET, DEFAULT_BROKER="FLATTRADE")
    assert settings.brokers == ("PAPER", "FLATTRADE")
    assert (settings.mode_of("FLATTRADE"), settings.default_broker_name) == ("LIVE", "FLATTRADE")
    assert load(**FLATTRADE, WEBHOOK_SECRET_KEY=SECRET).default_broker_name == "PAPER"


@pytest.mark.parametrize("client", ["FT 0001", "FT0001&jKey=x", "F" * 21, 'F"'])
def test_a_client_id_is_letters_and_digits(load: Load, client: str) -> None:
    (found,) = mistakes(load, **FLATTRADE | {"FLATTRADE_CLIENT_ID": client}, WEBHOOK_SECRET_KEY=SECRET)
    assert found.startswith("FLATTRADE_CLIENT_ID must be letters and digits")
