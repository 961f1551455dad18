"""The words agree with the code: settings and their tables, the map of the files, links, deployment files."""

from __future__ import annotations

import ast
import json
import os
import re
from decimal import Decimal
from pathlib import Path

import pytest

from config import ALIASES, SETTING_FIELDS, SETTING_NAMES, Settings
from csv_rows import SIGNALS_COLUMNS, TRADES_COLUMNS
from live import SIGN_OF_LIFE_SECONDS
from models import plain
from setting_sources import load_settings

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / ".env.example").read_text()
README = (ROOT / "README.md").read_text()
TABLE = README.split("\n## Settings\n")[1].split("\n## ")[0]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def default_of(name: str) -> str:
    value = Settings.model_fields[name.lower()].default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return plain(value) if isinstance(value, Decimal) else str(value)


DEFAULTS = {name: default_of(name) for name in SETTING_NAMES}
MEANINGS = {field.upper(): Settings.model_fields[field].description for field in SETTING_FIELDS}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)


def test_every_setting_is_explained_in_one_sentence() -> None:
    for name, meaning in MEANINGS.items():
        assert meaning, name
        assert meaning.endswith("."), name
        assert "|" not in meaning, name


def test_every_other_name_of_a_setting_is_told_where_it_is_explained() -> None:
    for name, aliases in ALIASES.items():
        assert all(alias in (MEANINGS[name] or "") for alias in aliases)


def test_the_table_has_every_setting_once_with_its_default_and_its_meaning() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`|empty) \| (.*) \|$", TABLE, re.MULTILINE)
    assert len(rows) == len(SETTING_NAMES)
    assert {name: default for name, default, _ in rows} == DEFAULTS
    assert {name: meaning for name, _, meaning in rows} == MEANINGS


def test_the_table_has_no_row_that_the_test_overlooks() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("|")]
    headings = [line for line in rows if line in ("| Name | Default | Meaning |", "|---|---|---|")]
    assert len(rows) - len(headings) == len(SETTING_NAMES)


def test_the_example_has_every_setting_once_with_its_meaning_and_its_default() -> None:
    shown = re.findall(r"^# (.*)\n# ([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)
    assert len(shown) == len(SETTING_NAMES)
    assert {name: default for _, name, default in shown} == DEFAULTS
    assert {name: meaning for meaning, name, _ in shown} == MEANINGS
    assert len(re.findall(r"^#? ?\w+=", EXAMPLE, re.MULTILINE)) == len(SETTING_NAMES)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("uncommented", [False, True])
def test_the_example_is_a_good_env_file_that_changes_nothing(tmp_path: Path, uncommented: bool) -> None:
    text = re.sub(r"^# ([A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE) if uncommented else EXAMPLE
    path = tmp_path / ".env"
    path.write_text(text)
    path.chmod(0o600)
    assert load_settings(path) == Settings()
    assert load_settings(path).warnings == ()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_name_only_settings_that_there_are(page: Path) -> None:
    mentioned = set(re.findall(r"\b([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b(?==|`)", page.read_text()))
    known = {*SETTING_NAMES, *(alias for aliases in ALIASES.values() for alias in aliases), "ON_FAILURE"}
    assert {name for name in mentioned - known if not name.startswith(("RAILWAY_", "RAILPACK_"))} <= {
        "BINANCE_REAL",
        "NOT_PLACED",
    }


def lines_of_the_map() -> dict[str, int]:
    """On which line of README's map each of our modules stands."""
    table = README[README.index("| file | its one job |") :].split("\n\n", 1)[0]
    found: dict[str, int] = {}
    for number, line in enumerate(table.splitlines()):
        for pattern in re.findall(r"`([\w*]+\.py)`", line.split("|")[1]):
            found |= {path.stem: number for path in sorted(ROOT.glob(pattern))}
    return found


def test_every_file_is_on_the_map_and_imports_only_from_its_own_line_and_below() -> None:
    lines = lines_of_the_map()
    assert lines.keys() == {path.stem for path in ROOT.glob("*.py")}
    for module, line in lines.items():
        for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            above = [name for name in names if name in lines and lines[name] < line]
            assert not above, f"{module}.py imports {above} from above"


@pytest.mark.parametrize(("file", "columns"), [("signals", SIGNALS_COLUMNS), ("trades", TRADES_COLUMNS)])
def test_every_column_of_the_csv_files_is_explained_in_its_place(file: str, columns: tuple[str, ...]) -> None:
    table = (ROOT / "docs" / "first-steps.md").read_text().split(f"| {file}.csv | |\n")[1].split("\n\n")[0]
    shown = [name for row in table.splitlines()[1:] for name in re.findall("`(.*?)`", row.split("|")[1])]
    assert tuple(shown) == columns


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_link_only_to_pages_that_there_are(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_railway_runs_one_daemon_that_never_sleeps_and_has_time_to_stop() -> None:
    deploy = json.loads((ROOT / "railway.json").read_text())["deploy"]
    assert deploy["startCommand"] == (ROOT / "Procfile").read_text().removeprefix("web: ").strip()
    assert deploy["healthcheckPath"] == "/health"
    assert (deploy["numReplicas"], deploy["sleepApplication"], deploy["overlapSeconds"]) == (1, False, 0)
    assert deploy["drainingSeconds"] >= 10


REQUIREMENT = re.compile(r"([a-z0-9.-]+==[0-9][0-9.]*)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def pins_of(name: str) -> dict[str, set[str]]:
    return {
        pin: set(re.findall("[0-9a-f]{64}", hashes)) for pin, hashes in REQUIREMENT.findall((ROOT / name).read_text())
    }


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_a_version_and_its_hashes_and_nothing_else_is_said(name: str) -> None:
    rest = REQUIREMENT.sub("", (ROOT / name).read_text()).splitlines()
    assert [line for line in rest if not line.startswith("#")] == []
    assert not any("://" in line for line in rest), "where packages come from is the business of who installs them"
    pinned = {pin.partition("==")[0] for pin in pins_of(name)}
    asked_for = (ROOT / name.replace(".txt", ".in")).read_text().splitlines()
    assert {line for line in asked_for if not line.startswith(("#", "-r "))} <= pinned


def test_the_tests_run_on_what_the_daemon_runs_on() -> None:
    assert pins_of("requirements.txt").items() <= pins_of("requirements-dev.txt").items()


def test_nothing_is_installed_without_its_hash() -> None:
    installs = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line and " -r " in line
    ]
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)


def test_the_proxies_of_the_deployment_page_let_the_live_page_live() -> None:
    """Caddy counts `write` from the beginning of an answer, nginx its time-outs from the last sign of life."""
    page = (ROOT / "docs" / "deploy-server.md").read_text()
    assert not re.search(r"^\s+write\b", page, re.MULTILINE)
    silences = re.findall(r"(?:send_timeout|proxy_read_timeout)\s+(\d+)s;", page)
    assert len(silences) == 2
    assert min(map(int, silences)) > 2 * SIGN_OF_LIFE_SECONDS
