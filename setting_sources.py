"""Where settings come from: the environment over `.env`, and what the owner changes. All mistakes are told at once."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as part
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic import ValidationError

from config import FIELD_OF, Contradictory, Mistake, Settings, SettingsError, Surroundings
from setting_values import Wrong

TYPO_LIKENESS = 0.8


@dataclass(slots=True)
class _Given:
    """What was found, by field, with the name it came under."""

    values: dict[str, str] = part(default_factory=dict)
    names: dict[str, str] = part(default_factory=dict)
    mistakes: list[str] = part(default_factory=list)
    remarks: list[str] = part(default_factory=list)

    def take(self, variables: Mapping[str, str]) -> None:
        """Take over our settings; what was taken before is replaced."""
        came_under: dict[str, str] = {}
        for name, text in variables.items():
            field = FIELD_OF.get(name)
            if field is None or not text.strip():
                continue
            if field in came_under and variables[came_under[field]].strip() != text.strip():
                self.mistakes.append(f"{came_under[field]} and {name} are the same setting and must not differ")
            came_under[field] = name
            if not text.strip().isprintable():
                self.mistakes.append(f"{name} must be one line of printable characters")
                continue
            self.values[field], self.names[field] = text, name


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the process environment over `env_file`, and judge all of it.

    An empty value is the same as none. Raises `SettingsError` with everything that is wrong.
    """
    given = _Given()
    if env_file is not None:
        given.take(_read_file(env_file, given))
    # Capitals sort before small letters, so in reverse a name written as it should be comes last and wins.
    environment = {name.upper(): text for name, text in sorted(os.environ.items(), reverse=True)}
    given.take(environment)
    given.remarks += (
        f"{name} in the environment is not a setting and is ignored; did you mean {meant}?"
        for name, meant in _typos(environment)
    )
    around = _look_around(environment, given)
    settings, mistakes = _judge(given, around)
    if settings is None or given.mistakes:
        raise SettingsError([*given.mistakes, *(mistake.text for mistake in mistakes)])
    return settings


def judge_changes(settings: Settings, texts: Mapping[str, str]) -> tuple[Settings | None, list[Mistake]]:
    """The settings with these over them, judged as at start; an empty text: not set, whatever it was before."""
    given = _Given()
    given.values |= {name: getattr(settings, name) for name in settings.model_fields_set if name != "surroundings"}
    given.values |= texts
    return _judge(given, settings.surroundings)


def _look_around(environment: Mapping[str, str], given: _Given) -> Surroundings:
    """On Railway, other defaults: listen for its proxy, and keep the records where they survive."""
    on_railway = any(environment.get(name) for name in ("RAILWAY_PROJECT_ID", "RAILWAY_ENVIRONMENT"))
    volume = environment.get("RAILWAY_VOLUME_MOUNT_PATH", "") if on_railway else ""
    if on_railway:
        given.values.setdefault("host", "0.0.0.0")
    if volume:
        given.values.setdefault("log_dir", volume)
    return Surroundings(on_railway=on_railway, volume=volume, remarks=tuple(given.remarks))


def _judge(given: _Given, around: Surroundings) -> tuple[Settings | None, list[Mistake]]:
    """The settings, or everything that is wrong with them."""
    values: dict[str, Any] = {"surroundings": around, **given.values}
    try:
        return Settings(**values), []
    except ValidationError as exc:
        wrong = {str(error["loc"][0]): error for error in exc.errors(include_input=False) if error["loc"]}
        found = _contradictions(exc)
    if wrong:
        # A second look with the wrong ones set aside: do the others contradict each other?
        try:
            Settings(**{name: value for name, value in values.items() if name not in wrong})
        except ValidationError as exc:
            found = [one for one in _contradictions(exc) if wrong.keys().isdisjoint(one.fields)]
    return None, [Mistake((field,), _told_wrong(given, field, error)) for field, error in wrong.items()] + found


def _contradictions(exc: ValidationError) -> list[Mistake]:
    causes = [error.get("ctx", {}).get("error") for error in exc.errors(include_input=False)]
    return [found for cause in causes if isinstance(cause, Contradictory) for found in cause.found]


def _is_secret(field: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[field].annotation)


def _told_wrong(given: _Given, field: str, error: Mapping[str, Any]) -> str:
    name, cause = given.names.get(field, field.upper()), error.get("ctx", {}).get("error")
    if _is_secret(field) or (isinstance(cause, Wrong) and cause.hide_value):
        return f"{name} {cause or error['msg']}"
    seen = given.values[field].strip()
    told = f"{name} {cause or error['msg']}, was {seen[:80] + '…' if len(seen) > 80 else seen!r}"
    if Settings.model_fields[field].default is None and not seen.strip("0."):
        # What came under no name of its own was sent while it runs, where empty is refused.
        told += "; to switch it off, " + ("leave it empty" if field in given.names else 'say "off"')
    return told


def _read_file(path: Path, given: _Given) -> dict[str, str]:
    """The variables of a `.env` file. What cannot be read is a mistake: no limit may vanish with a slip of the pen."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        given.mistakes.append(f"{path} cannot be read: {reason}")
        return {}
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        given.remarks.append(f"{path} can be read by other users of this machine: chmod 600 {path}")
    variables = _parse(path, text, given)
    given.mistakes += (f"{name} in {path} is not a setting; did you mean {meant}?" for name, meant in _typos(variables))
    return variables


def _parse(path: Path, text: str, given: _Given) -> dict[str, str]:
    variables: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        line = f"line {binding.original.line} of {path}"
        name = (binding.key or "").upper()
        if binding.error or (binding.value is None and name in FIELD_OF):
            given.mistakes.append(f"{line} must be NAME=value or a comment beginning with #")
        elif name in FIELD_OF and name in variables and variables[name] != binding.value:
            given.mistakes.append(f"{name} must be set only once, and {line} sets it again")
        elif name:
            variables[name] = binding.value or ""
    return variables


def _typos(variables: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Names that are none of ours, but nearly, or some words of one of them: STOP_LOSS, MAX_LOSS."""
    for name in variables:
        if name not in FIELD_OF and (
            alike := get_close_matches(name, FIELD_OF, 1, TYPO_LIKENESS) or _with_these_words(name)
        ):
            yield name, alike[0]


def _with_these_words(name: str) -> list[str]:
    """A single word, or one that begins otherwise (API_KEY), may well be another program's."""
    first, *others = name.split("_")
    known = ((setting, setting.split("_")) for setting in FIELD_OF)
    return [setting for setting, words in known if others and words[0] == first and {*others} <= {*words}]
