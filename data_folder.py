"""LOG_DIR: made for its owner alone, used by one process at a time, with the secret that paper mode makes itself."""

from __future__ import annotations

import csv
import fcntl
import os
import re
import secrets
from pathlib import Path

from csv_rows import SIGNALS_COLUMNS

LOCK_NAME = "gatehouse.lock"
SECRET_NAME = "webhook_secret"
JOURNAL_NAME = "journal.db"
LONGEST_ROW = 1 << 14


class FolderError(Exception):
    """The folder cannot be used; the text says why and what to do."""


class DataFolder:
    """Open means locked. The lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise FolderError(f"LOG_DIR {path} cannot be used: {exc.strerror}; choose one that can be written") from exc
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock_fd)
            raise FolderError(
                f"another instance is already running on LOG_DIR {path}: stop it, or give this one its own LOG_DIR"
            ) from exc

    @property
    def journal_path(self) -> Path:
        """Raises FolderError when the journal is gone while its CSV files are still there.

        Without it the program would not know what it already traded: duplicates would trade again.
        """
        journal = self.path / JOURNAL_NAME
        leftovers = [name for name in ("signals.csv", "trades.csv") if (self.path / name).exists()]
        if leftovers and not journal.exists():
            raise FolderError(
                f"{JOURNAL_NAME} is missing from {self.path} but {' and '.join(leftovers)} is there: restore the "
                "journal from a backup, or move the CSV files away to start from nothing"
            )
        return journal

    def refuse_to_forget(self, journal_rows: int) -> None:
        """Raises FolderError when the journal holds no row while a CSV file does: its latest part is missing.

        What was written last is in `journal.db-wal`; copied or moved without it, `journal.db` remembers nothing.
        """
        names = ("signals.csv", "trades.csv")
        with_rows = [name for name in names if not journal_rows and _has_rows(self.path / name)]
        if with_rows:
            raise FolderError(
                f"{JOURNAL_NAME} is empty in {self.path} but {' and '.join(with_rows)} has rows: put "
                f"{JOURNAL_NAME}-wal back beside it, restore a backup, or move the CSV files away to start from nothing"
            )

    def newest_signal(self) -> str:
        """The SignalID in the last row of signals.csv; empty where there is none that could be ours."""
        try:
            with (self.path / "signals.csv").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_ROW))
                last = file.read().decode(errors="replace").splitlines()[-1]
            cells = dict(zip(SIGNALS_COLUMNS, next(csv.reader([last])), strict=True))
        except (OSError, IndexError, ValueError, csv.Error):
            return ""
        return cells["SignalID"] if re.fullmatch(r"s[0-9a-z]{10,}", cells["SignalID"]) else ""

    def own_secret(self) -> str:
        """The webhook secret of an installation that was given none: made once, then always the same.

        Raises FolderError.
        """
        path = self.path / SECRET_NAME
        try:
            return path.read_text("ascii").strip() or self._new_secret(path)
        except FileNotFoundError:
            return self._new_secret(path)
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "there are other signs in it than letters and digits"
            raise FolderError(f"{path} cannot be read: {why}; move it away, and a new secret is made") from exc

    def _new_secret(self, path: Path) -> str:
        secret = secrets.token_urlsafe(24)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
        return secret

    def close(self) -> None:
        os.close(self._lock_fd)


def _has_rows(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().endswith(b"\n") and bool(file.readline().strip())
    except OSError:
        return False
