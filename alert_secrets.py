"""Which secrets a body claims, and what is left of it without one. Works on broken alerts, judges nothing.

Finding the claim must not need a valid alert: the owner of a mistyped alert should read what is wrong with it (400),
not that the secret is wrong (401).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from urllib.parse import quote, quote_plus, unquote_plus

from alert_text import is_too_deep, read_pairs
from alert_values import AlertError, JsonNumber, Value
from alert_words import SECRET_FIELDS, squeeze

MAX_CLAIMS = 8
MAX_SECRET_CHARACTERS = 512


def claimed_secrets(body: bytes, fields: dict[str, Value] | None = None) -> tuple[str, ...]:
    """Every value that stands in a field for secrets, the outermost first; at most 8. Takes time linear in the body.

    `fields`: what `json_fields` made of the body, to spare reading it twice.
    """
    if fields is not None:
        claims = _outermost_first(fields)
    else:
        text = body.decode("utf-8-sig", "replace").strip()
        in_json = _in_json(text)
        claims = _in_text(text) if in_json is None else in_json
    return tuple(dict.fromkeys(claim for claim in claims if _is_usable(claim)))[:MAX_CLAIMS]


def _is_usable(claim: str) -> bool:
    if not 0 < len(claim) <= MAX_SECRET_CHARACTERS:
        return False
    return claim.isascii() or not any("\ud800" <= char <= "\udfff" for char in claim)


class _Pairs(list[tuple[str, Value]]):
    """An object of the JSON, with every one of its fields, also those that stand in it twice."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_float=JsonNumber, parse_int=JsonNumber)


def _in_json(text: str) -> list[str] | None:
    """None when it is not JSON."""
    if text[:1] not in ("{", "[") or is_too_deep(text):
        return None
    try:
        return _outermost_first(_DECODER.decode(text))
    except ValueError:
        return None


def _outermost_first(document: object) -> list[str]:
    claims: list[str] = []
    level = [document]
    while level:
        pairs = [pair for part in level for pair in _pairs(part)]
        for name, value in pairs:
            if isinstance(value, str) and squeeze(name) in SECRET_FIELDS:
                claims.append(str(value))
        inner = [value for _, value in pairs]
        inner += [value for part in level if type(part) is list for value in part]
        level = [value for value in inner if isinstance(value, dict | list)]
    return claims


def _pairs(part: object) -> Iterable[tuple[str, Value]]:
    if isinstance(part, dict):
        return part.items()
    return part if isinstance(part, _Pairs) else ()


# "secret": "…"  'secret': '…'  “secret”: “…”  secret=…  SECRET: …
_CLAIM = re.compile(
    r"\b([A-Za-z][\w-]{0,31}+)[\"'“”]?\s{0,16}+[:=]\s{0,16}+"
    r"(?:\"((?:[^\"\\]|\\.){1,512}+)\"|'([^']{1,512})'|“([^”]{1,512})”|([^\s,;&{}\"'“”]{1,512}))"
)
# PineConnector: LicenseID,buy,US100,sl=10
_FIRST_OF_COMMA_TEXT = re.compile(r"([^\s,={}\"']{1,512}),")


def _in_text(text: str) -> list[str]:
    claims = [license_id[1]] if (license_id := _FIRST_OF_COMMA_TEXT.match(text)) else []
    claims += _in_pairs(text)
    for claim in _CLAIM.finditer(text):
        if squeeze(claim[1]) in SECRET_FIELDS:
            value = next(group for group in claim.groups()[1:] if group)
            claims += [value, unquote_plus(value)]
    return claims


def _in_pairs(text: str) -> list[str]:
    try:
        return [value for name, value in read_pairs(text).items() if squeeze(name) in SECRET_FIELDS]
    except AlertError:
        return []


def alert_key(body: bytes, secret: str) -> str:
    """sha256 hex digest of the body without its secret: TradingView's resends are byte-identical.

    <https://www.tradingview.com/support/solutions/43000735201/>
    """
    for form in _written_forms(secret):
        body = body.replace(form, b"\0")
    return hashlib.sha256(body).hexdigest()


@cache
def _written_forms(secret: str) -> list[bytes]:
    """As it may stand in a body: as it is, in JSON, in a URL; longest first, so that none is cut by another."""
    if not secret:
        return []
    forms = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
    }
    return sorted((form.encode("utf-8", "surrogatepass") for form in forms), key=len, reverse=True)
