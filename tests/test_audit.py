""".ci/audit: what it says of known holes; silence is no answer. All the programs that it calls are fakes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import ROOT

# `python3 -m venv DIR` makes a pip, and that pip a pip-audit, which answers for the known hole and for our pins.
PYTHON = """#!/bin/sh
mkdir -p "$3/bin"
cat >"$3/bin/pip" <<EOF
#!/bin/sh
[ "\\$INSTALLS" = no ] && { echo "no network" >&2; exit 1; }
[ "\\$INSTALLS" = hangs ] && exec sleep 60
cp "$FAKES/pip-audit" "$3/bin/pip-audit"
EOF
chmod +x "$3/bin/pip"
"""
AUDIT = """#!/bin/sh
echo "$*" >>"$FAKES/asked"
case "$*" in *known.txt) answer=$KNOWN ;; *) answer=$PINS ;; esac
case $answer in
  hole) echo "Found 1 known vulnerability in 1 package"; exit 1 ;;
  clean) echo "No known vulnerabilities found"; exit 0 ;;
  skipped) echo "starlette: could not be audited" >&2; exit 1 ;;
  unreachable) echo "ConnectionError: no route to host" >&2; exit 1 ;;
  hangs) exec sleep 60 ;;
esac
"""
# The real one, in a hurry: who waits for three minutes in CI waits for half a second here.
TIMEOUT = """#!/bin/sh
shift
exec /usr/bin/env PATH="$REAL_PATH" timeout 0.5 "$@"
"""


def audit(
    folder: Path, *, known: str = "hole", pins: str = "clean", installs: str = "yes"
) -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and what pip-audit was asked."""
    for name, text in (("python3", PYTHON), ("pip-audit", AUDIT), ("timeout", TIMEOUT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    real = os.environ["PATH"]
    env = {"PATH": f"{folder}:{real}", "REAL_PATH": real, "FAKES": str(folder), "TMPDIR": str(folder)}
    answers = {"KNOWN": known, "PINS": pins, "INSTALLS": installs}
    ran = subprocess.run([ROOT / ".ci" / "audit"], env=env | answers, capture_output=True, text=True, timeout=30)
    asked = (folder / "asked").read_text().splitlines() if (folder / "asked").exists() else []
    assert list(folder.glob("tmp.*")) == [], "it leaves nothing behind"
    return ran.returncode, ran.stdout.strip(), asked


def test_pins_without_a_known_hole_pass_and_are_all_asked_for_by_hash(tmp_path: Path) -> None:
    code, said, asked = audit(tmp_path)
    assert (code, said) == (0, "No known vulnerabilities found")
    assert asked[0].endswith("known.txt")
    assert asked[1].endswith("--require-hashes -r requirements-dev.txt")
    assert all("--strict" in each for each in asked)


def test_a_known_hole_in_the_pins_fails_and_is_shown(tmp_path: Path) -> None:
    code, said, _ = audit(tmp_path, pins="hole")
    assert (code, said) == (1, "Found 1 known vulnerability in 1 package")


def test_a_package_that_was_not_looked_at_fails(tmp_path: Path) -> None:
    code, said, _ = audit(tmp_path, pins="skipped")
    assert (code, said) == (1, "starlette: could not be audited")


@pytest.mark.parametrize("known", ["unreachable", "hangs", "clean", "skipped"])
def test_who_does_not_see_the_known_hole_is_not_believed_about_the_others(tmp_path: Path, known: str) -> None:
    code, said, asked = audit(tmp_path, known=known, pins="clean")
    assert (code, said) == (0, "pip-audit: not run, the advisory database cannot be reached")
    assert len(asked) == 1


@pytest.mark.parametrize("pins", ["unreachable", "hangs"])
def test_a_database_that_stops_answering_is_told_and_no_verdict(tmp_path: Path, pins: str) -> None:
    code, said, _ = audit(tmp_path, pins=pins)
    assert code == 0
    assert said.startswith("pip-audit: not run, the advisory database stopped answering")


@pytest.mark.parametrize("installs", ["no", "hangs"])
def test_where_it_cannot_be_installed_it_is_not_run(tmp_path: Path, installs: str) -> None:
    code, said, asked = audit(tmp_path, installs=installs)
    assert (code, said, asked) == (0, "pip-audit: not run, it cannot be installed", [])
