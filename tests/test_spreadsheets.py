"""Both CSV files opened, and saved over, by LibreOffice itself, after 3,000 hostile alerts: `make sheets`.

It takes a good minute, so `make test` leaves it out.
"""

from __future__ import annotations

import csv
import http.client
import json
import math
import os
import random
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_binance import FakeBinance
from harness import (
    API_KEY,
    API_SECRET,
    SECRET,
    Daemon,
    Nursery,
    assert_csvs_equal_journal,
    binance,
    eventually,
)

SOFFICE = shutil.which("soffice") or ""
pytestmark = [
    pytest.mark.skipif("SHEETS" not in os.environ, reason="takes a good minute: make sheets"),
    pytest.mark.skipif(not SOFFICE, reason="no soffice here (Debian, Ubuntu: apt-get install libreoffice-calc)"),
]

FILES = ("signals", "trades")
NUMBERS = {
    "Confidence", "Quantity", "Amount", "Price", "LatencyMs", "TradeAmount", "Fee", "RealizedPnL",
}  # fmt: skip
LONG_ID = 8_389_765_512_345_678_901
HOSTILE = 3_000
SENDERS = 4

# What the README tells people to choose where the decimal sign is a comma.
SYSTEM_LANGUAGE, ENGLISH_USA = 0, 1033
COMMA, EVERY_SEPARATOR = "44", "44/59/9/124"  # of these, `, ; TAB |`, a careless import dialog may have all ticked

# --- what is sent -----------------------------------------------------------------------------------------------------

STARTS = ("=", "+", "-", "@", "%", "|", "'", '"', ";", ",", " =", "\t=", "\r\n=", "\u200b=", "\ufeff=", "\uff1d",
          "\ufe66", "\u2212", "\uff0b", "\uff20", "a;=", "a|=", "a\t=", "a\n=", 'a"=', '",=', '";=', "\uff1b=", "",
          "\u202e=", "\u037e=", "{=", "'=", "''=", "\u2060=", "\u00a0=")  # fmt: skip
PAYLOADS = ("1+1", "SUM(1;1)", "cmd|'/c calc'!A1", "DDE(\"soffice\";\"/etc/passwd\";\"A1\")", "2*3}",
            'HYPERLINK("http://127.0.0.1/";"click")', 'WEBSERVICE("http://127.0.0.1/")', "MSEXCEL|'\\..\\cmd.exe'!''",
            "IMPORTXML(CONCAT(\"http://127.0.0.1/\"; A1))", "http://127.0.0.1/", "file:///etc/passwd", "R1C1", "A1",
            "'file:///etc/passwd'#$a.A1", "12e45678", "1234567890123456789", "0123", "9" * 64, "1,5", "NA()", "1E5",
            "Стратегия", "戦略", "مرحبا", "🚀", "é\u0301", "&amp;<b>", "#REF!", "$A$1", "x" * 300)  # fmt: skip
ENDS = ("", "", "", ";=1+1", "|=1+1", "\t=1+1", "\r\n=1+1", '"', "'", '","=1+1', "\u2028=1+1", ",", "\\", "\x85=1")

NAMES = ("Стратегия 戦略", "استراتيجية", "กลยุทธ์ ๑", "Ünïcödé ß", "突破 🚀")  # what must still be readable


def hostile(dice: random.Random) -> str:
    return dice.choice(STARTS) + dice.choice(PAYLOADS) + dice.choice(ENDS)


def alert(number: int, dice: random.Random) -> dict[str, object]:
    """One of ten trades, three of ten are refused, the rest is not understood and says so in its Reason."""
    text = {"strategy": hostile(dice), "timeframe": hostile(dice), "comment": str(number)}
    traded = {"symbol": "BTCUSDT", "action": "buy", "price": 43000, "amount_usdt": 10, "broker": "PAPER", **text}
    if number % 10 == 0:
        return traded
    if number % 10 <= 3:
        return traded | {"confidence": 1}
    field = dice.choice(("action", "symbol", "price", "quantity", "broker", "market_position", "type", "strategy"))
    return traded | {field: hostile(dice) if field != "strategy" else [hostile(dice)]}


def send_all(port: int, alerts: Sequence[dict[str, object]]) -> list[int]:
    """The answers' status codes; one connection for all of them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    codes = []
    for each in alerts:
        connection.request("POST", "/webhook", json.dumps({"secret": SECRET, **each}))
        response = connection.getresponse()
        response.read()
        codes.append(response.status)
    connection.close()
    return codes


# --- LibreOffice ------------------------------------------------------------------------------------------------------

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry" xmlns:xs="http://www.w3.org/2001/XMLSchema">
<item oor:path="/org.openoffice.Setup/L10N">
<prop oor:name="ooSetupSystemLocale" oor:op="fuse"><value>{}</value></prop>
</item></oor:items>"""

CSV = "Text - txt - csv (StarCalc)"
LIBRARIES = """<?xml version="1.0" encoding="UTF-8"?>
<library:libraries xmlns:library="http://openoffice.org/2000/library" xmlns:xlink="http://www.w3.org/1999/xlink">
<library:library library:name="Standard" library:link="false"/>
</library:libraries>"""
LIBRARY = """<?xml version="1.0" encoding="UTF-8"?>
<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard" library:readonly="false"
 library:passwordprotected="false"><library:element library:name="Save"/></library:library>"""
MODULE = """<?xml version="1.0" encoding="UTF-8"?>
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Save" script:language="StarBasic">
Sub Over(path As String)
  Dim how(1) As New com.sun.star.beans.PropertyValue
  how(0).Name = "FilterName"
  how(0).Value = "Text - txt - csv (StarCalc)"
  how(1).Name = "FilterOptions"
  how(1).Value = "44,34,76,1,,1033,false,true,false,false,false,0,false"
  book = StarDesktop.loadComponentFromURL(path, "_blank", 0, how())
  book.Sheets.getByIndex(0).getCellByPosition(3, 1).String = "my own words"
  book.store()
  book.close(True)
  StarDesktop.terminate()
End Sub
</script:module>"""


class Office:
    """LibreOffice of a country, with a profile of its own."""

    def __init__(self, folder: Path, locale: str) -> None:
        self.profile = folder / locale
        (self.profile / "user").mkdir(parents=True)
        (self.profile / "user" / "registrymodifications.xcu").write_text(PROFILE.format(locale))

    def convert(
        self, path: Path, to: str, folder: Path, language: int, separators: str = COMMA, special: bool = True
    ) -> None:
        # separators, quote, UTF-8, first row, columns, language, quoted as text, special numbers, for saving (3),
        # sheet, and formulas are run: the worst that an import can be told.
        options = f"{separators},34,76,1,,{language},false,{str(special).lower()},false,false,false,0,true"
        done = self.run(f"--infilter={CSV}:{options}", "--convert-to", to, "--outdir", str(folder), str(path))
        assert path.stem in {written.stem for written in folder.iterdir()}, done

    def save_over(self, path: Path) -> None:
        """A person opens the file, changes the first name and presses Save.

        Rows that come in between are another test's: LibreOffice asks before it saves over a file that has changed.
        """
        macro = self.profile / "user" / "basic" / "Standard"
        if not macro.exists():
            self.run("--terminate_after_init")  # a new profile takes no macros with its very first start
        macro.mkdir(parents=True, exist_ok=True)
        (macro.parent / "script.xlc").write_text(LIBRARIES)
        (macro / "script.xlb").write_text(LIBRARY)
        (macro / "Save.xba").write_text(MODULE)
        self.run(f"macro:///Standard.Save.Over({path.as_uri()})")

    def run(self, *arguments: str) -> str:
        # `timeout`, as soffice is a script: its children would stay.
        done = subprocess.run(
            [
                "timeout",
                "60",
                SOFFICE,
                f"-env:UserInstallation={self.profile.as_uri()}",
                "--headless",
                "--norestore",
                *arguments,
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(self.profile)},
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    def open(self, path: Path, **import_options: object) -> list[list[Cell]]:
        folder = self.profile / "opened"
        folder.mkdir(exist_ok=True)
        self.convert(path, "fods", folder, **import_options)  # type: ignore[arg-type]
        return sheet(folder / f"{path.stem}.fods")


@dataclass(frozen=True)
class Cell:
    kind: str  # string, float, date …; empty for an empty cell
    value: str  # what it is, as the file format says it
    text: str  # what is seen
    active: str  # formula, link or anything else that does something


OFFICE, TABLE, TEXT = (f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}" for name in ("office", "table", "text"))
ACTIVE = {f"{TEXT}a", f"{OFFICE}dde-source", f"{TABLE}dde-link", f"{TABLE}table-source", f"{TABLE}cell-range-source"}


def sheet(path: Path) -> list[list[Cell]]:
    """The cells of a flat OpenDocument spreadsheet, repeated ones spelled out, empty ends cut off."""
    root = ElementTree.parse(path).getroot()
    tables = list(root.iter(f"{TABLE}table"))
    assert len(tables) == 1
    assert not [node.tag for node in root.iter() if node.tag in ACTIVE]
    rows = []
    for row in tables[0].iter(f"{TABLE}table-row"):
        cells: list[Cell] = []
        for node in row.iter(f"{TABLE}table-cell"):
            cells += [cell(node)] * int(node.get(f"{TABLE}number-columns-repeated", "1"))
        if any(each.kind for each in cells):
            rows.append(cells)
            assert row.get(f"{TABLE}number-rows-repeated", "1") == "1", "no two rows are alike"
    return rows


def cell(node: ElementTree.Element) -> Cell:
    kind = node.get(f"{OFFICE}value-type", "")
    value = node.get(f"{OFFICE}value") or node.get(f"{OFFICE}date-value") or ""
    text = "\n".join(plain_text(part) for part in node.iter(f"{TEXT}p"))
    active = " ".join(f"{name}={value}" for name, value in node.attrib.items() if "formula" in name or "href" in name)
    return Cell(kind, value, text, active)


def plain_text(paragraph: ElementTree.Element) -> str:
    """Runs of blanks are elements of their own."""
    parts = [paragraph.text or ""]
    for child in paragraph:
        parts.append(" " * int(child.get(f"{TEXT}c", "1")) if child.tag == f"{TEXT}s" else plain_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


# --- a daemon that has seen it all ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traded(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("traded")
    with FakeBinance(API_KEY, API_SECRET) as exchange:
        exchange.set_price("BTCUSDT", 43000)
        exchange._engine._next_order_id = LONG_ID
        generous = {"max_open_trades": 100_000, "max_trades_per_day": 100_000, "paper_balance_usdt": 10**7}
        daemon = Daemon(nursery, folder, **binance(exchange, cooldown_seconds=0, **generous)).start()
        try:
            fill(daemon)
            yield daemon
        finally:
            daemon.kill()


def fill(daemon: Daemon) -> None:
    dice = random.Random(20261121)
    alerts = [alert(number, dice) for number in range(HOSTILE)]
    with ThreadPoolExecutor(SENDERS) as senders:
        codes = senders.map(lambda number: send_all(daemon.port, alerts[number::SENDERS]), range(SENDERS))
        assert {code for some in codes for code in some} == {200, 400}
    for number, name in enumerate(NAMES):
        reply = daemon.post(symbol="BTCUSDT", action="buy", broker="BINANCE", amount_usdt=10, strategy=name, tf=number)
        assert reply["status"] == "FILLED", reply.body
    closed = daemon.post(symbol="BTCUSDT", action="sell", price=42000, broker="PAPER", strategy="the way out")
    assert closed["status"] == "FILLED", closed.body
    assert_csvs_equal_journal(daemon)
    assert len(daemon.signals()) == HOSTILE + len(NAMES) + 1
    assert len(daemon.trades()) > HOSTILE / 10


def rows_of(daemon: Daemon, file: str) -> list[list[str]]:
    with (daemon.folder / "logs" / f"{file}.csv").open(encoding="utf-8-sig", newline="") as text:
        return list(csv.reader(text))


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Office]:
    folder, made = tmp_path_factory.mktemp("offices"), dict[str, Office]()

    def office(locale: str) -> Office:
        if locale not in made:
            made[locale] = Office(folder, locale)
        return made[locale]

    return office


def columns(rows: list[list[str]], seen: list[list[Cell]]) -> Iterator[tuple[str, str, Cell]]:
    """Name, what the file says, what LibreOffice makes of it."""
    assert len(seen) == len(rows)
    names = rows[0]
    assert [each.text for each in seen[0][: len(names)]] == names
    for row, cells in zip(rows[1:], seen[1:], strict=True):
        cells = cells + [Cell("", "", "", "")] * (len(names) - len(cells))
        assert not [each for each in cells[len(names) :] if each.kind], "a row with more cells than columns"
        yield from zip(names, row, cells, strict=False)


# --- opening ----------------------------------------------------------------------------------------------------------

IMPORTS = [("en-US", SYSTEM_LANGUAGE), ("en-US", ENGLISH_USA), ("de-DE", ENGLISH_USA), ("fr-FR", ENGLISH_USA)]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("locale", "language"), IMPORTS)
def test_dates_are_dates_numbers_are_numbers_and_nothing_runs(
    locale: str, language: int, file: str, traded: Daemon, offices: Callable[[str], Office]
) -> None:
    rows = rows_of(traded, file)
    seen = offices(locale).open(traded.folder / "logs" / f"{file}.csv", language=language)
    long_ids = 0
    for name, said, shown in columns(rows, seen):
        assert not shown.active, (name, said, shown)
        if name == "DateTime":
            assert (shown.kind, shown.value.replace("T", " ")) == ("date", said)
        elif name in NUMBERS and said:
            assert shown.kind == "float", (name, said, shown)
            assert math.isclose(float(shown.value), float(said), rel_tol=1e-14)
        elif name == "OrderID" and said.startswith("'"):
            assert (shown.kind, shown.text) == ("string", said)
            assert len(said) == 20
            long_ids += 1
        elif name in NUMBERS:
            assert shown.kind == ""
    assert long_ids == (len(NAMES) if file == "trades" else 0)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("locale", ["de-DE", "fr-FR"])
def test_opened_with_a_decimal_comma_dates_and_whole_numbers_are_still_right_and_nothing_runs(
    locale: str, file: str, traded: Daemon, offices: Callable[[str], Office]
) -> None:
    """Without the import that README describes: numbers with a point stay text, as they are in the file."""
    rows = rows_of(traded, file)
    seen = offices(locale).open(traded.folder / "logs" / f"{file}.csv", language=SYSTEM_LANGUAGE)
    for name, said, shown in columns(rows, seen):
        assert not shown.active, (name, said, shown)
        if name == "DateTime":
            assert (shown.kind, shown.value.replace("T", " ")) == ("date", said)
        elif name in NUMBERS and said:
            assert (shown.kind, shown.value or shown.text) == ("string" if "." in said else "float", said)


@pytest.mark.parametrize("special", [True, False], ids=["special numbers", "plain"])
@pytest.mark.parametrize("file", FILES)
def test_every_text_is_seen_as_it_is_in_the_file(
    file: str, special: bool, traded: Daemon, offices: Callable[[str], Office]
) -> None:
    """Also without the recognition of dates and percentages, which is how the import dialog begins."""
    rows = rows_of(traded, file)
    path = traded.folder / "logs" / f"{file}.csv"
    seen = offices("en-US").open(path, language=ENGLISH_USA, special=special)
    changed = {
        (name, said, shown.kind, shown.text)
        for name, said, shown in columns(rows, seen)
        if name not in NUMBERS | {"DateTime"} and (shown.text != said or shown.kind not in ("string", "float", ""))
    }
    assert changed == set()


@pytest.mark.parametrize("file", FILES)
def test_names_in_other_alphabets_can_be_read(file: str, traded: Daemon, offices: Callable[[str], Office]) -> None:
    seen = offices("de-DE").open(traded.folder / "logs" / f"{file}.csv", language=SYSTEM_LANGUAGE)
    strategy = rows_of(traded, file)[0].index("Strategy")
    assert set(NAMES) <= {row[strategy].text for row in seen}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("locale", ["en-US", "de-DE"])
def test_nothing_runs_where_every_separator_divides(
    locale: str, file: str, traded: Daemon, offices: Callable[[str], Office]
) -> None:
    rows = rows_of(traded, file)
    path = traded.folder / "logs" / f"{file}.csv"
    seen = offices(locale).open(path, language=SYSTEM_LANGUAGE, separators=EVERY_SEPARATOR)
    assert len(seen) == len(rows)
    assert [each for row in seen for each in row if each.active] == []
    assert {len([each for each in row if each.kind]) <= len(rows[0]) for row in seen} == {True}


@pytest.mark.parametrize("separators", [COMMA, EVERY_SEPARATOR], ids=["comma", "every separator"])
def test_what_runs_is_seen_to_run(separators: str, tmp_path: Path, offices: Callable[[str], Office]) -> None:
    """The control: the same texts, written without our rule."""
    dice = random.Random(20261121)
    path = tmp_path / "raw.csv"
    with path.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([[number, hostile(dice)] for number in range(HOSTILE)])
    seen = offices("en-US").open(path, language=ENGLISH_USA, separators=separators)
    assert len([each for row in seen for each in row if each.active]) > 20


# --- saving over ------------------------------------------------------------------------------------------------------


def save_by_rename(path: Path, theirs: Path) -> None:
    os.replace(theirs, path)


def save_in_place(path: Path, theirs: Path) -> None:
    path.write_bytes(theirs.read_bytes())


@pytest.mark.parametrize("save", [save_by_rename, save_in_place])
@pytest.mark.parametrize("file", FILES)
def test_saved_over_by_libreoffice_the_copy_is_kept_and_the_rows_go_on(
    save: Callable[[Path, Path], None], file: str, traded: Daemon, offices: Callable[[str], Office]
) -> None:
    logs = traded.folder / "logs"
    path, kept_before = logs / f"{file}.csv", set(logs.glob(f"{file}.edited-*.csv"))
    work = traded.folder / f"saved-{file}-{save.__name__}"
    work.mkdir()
    offices("en-US").convert(path, f"csv:{CSV}:44,34,76,1", work, ENGLISH_USA)
    theirs = work / f"{file}.csv"
    edited = theirs.read_bytes()
    assert edited != path.read_bytes(), "LibreOffice changes the file by saving it"
    buy(traded, "meanwhile")  # the program was open, and rows went on
    save(path, theirs)
    buy(traded, "afterwards")
    kept = eventually_one_more(logs, file, kept_before)
    assert kept.read_bytes() == edited
    assert re.fullmatch(rf"{file}\.edited-\d{{8}}T\d{{6}}Z(-\d+)?\.csv", kept.name)
    assert_csvs_equal_journal(traded)
    assert {"meanwhile", "afterwards"} <= {row["Strategy"] for row in (traded.signals() + traded.trades())[-9:]}
    assert traded.owner_get("/status")["csv_lag"] == {"signals": 0, "trades": 0}


@pytest.mark.parametrize("file", FILES)
def test_opened_and_saved_by_libreoffice_where_it_is_it_loses_nothing(
    file: str, traded: Daemon, offices: Callable[[str], Office]
) -> None:
    logs = traded.folder / "logs"
    kept_before = set(logs.glob(f"{file}.edited-*.csv"))
    offices("fr-FR").save_over(logs / f"{file}.csv")
    kept = eventually_one_more(logs, file, kept_before).read_text("utf-8-sig")
    assert kept.splitlines()[1].count("my own words") == 1
    buy(traded, "after Save")
    assert_csvs_equal_journal(traded)
    rows = traded.signals() if file == "signals" else traded.trades()
    assert rows[-1]["Strategy"] == "after Save"
    assert "my own words" not in {row["Strategy"] for row in rows}


def buy(daemon: Daemon, strategy: str) -> None:
    reply = daemon.post(symbol="BTCUSDT", action="buy", price=43000, amount_usdt=10, broker="PAPER", strategy=strategy)
    assert reply["status"] in ("FILLED", "REJECTED"), reply.body


def eventually_one_more(logs: Path, file: str, before: set[Path]) -> Path:
    eventually(lambda: set(logs.glob(f"{file}.edited-*.csv")) > before, 5, lambda: f"no edited copy of {file}.csv")
    (kept,) = set(logs.glob(f"{file}.edited-*.csv")) - before
    return kept
