"""The body of an alert -> its fields, still unjudged: strict JSON, or one of the plain-text dialects.

TradingView sends `application/json` when the message happens to be valid JSON and `text/plain` when it is not
<https://www.tradingview.com/support/solutions/43000529348/>, so the content type decides nothing. Every dialect ends
in the same shape, a dict of field names and values, and signals.py does not know which one it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import unquote_plus

from alert_values import AlertError, JsonNumber, Value
from alert_words import FIELDS, SECRET_FIELDS, VERBS, squeeze

MAX_BODY_BYTES = 16 * 1024
MAX_DEPTH = 12  # the deepest known dialect has 3

_TEXT_WANTED = "a JSON object, key=value pairs, or a line such as: buy BTCUSDT QTY:0.05"


def read_fields(body: bytes) -> dict[str, Value]:
    text = _decoded(body)
    if text[:1] in ("{", "[", '"', "“"):
        return read_json(text)
    _refuse_raw_placeholder(text)
    fields: dict[str, Value] = {**read_text(text)}
    _check(fields)  # what was hidden by URL encoding
    return fields


def json_fields(body: bytes) -> dict[str, Value] | None:
    """The fields of a good JSON object; None for any other body, whose reader will say what it is."""
    if not body.startswith(b"{"):
        return None
    try:
        return read_fields(body)
    except AlertError:
        return None


def _decoded(body: bytes) -> str:
    if len(body) > MAX_BODY_BYTES:
        raise AlertError("body", f"at most {MAX_BODY_BYTES} bytes", f"{len(body)} bytes")
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise AlertError("body", "UTF-8 text", "other bytes") from None
    if not text:
        raise AlertError("body", _TEXT_WANTED, "")
    if "\0" in text:
        raise AlertError("body", "text without NUL characters", "one of them")
    return text


# --- JSON --------------------------------------------------------------------------------------------------------


def read_json(text: str) -> dict[str, Value]:
    """Stricter than `json.loads`: no duplicate keys, no NaN, no lone surrogates, no placeholders, numbers as text."""
    if is_too_deep(text):
        raise AlertError("body", f"JSON nested at most {MAX_DEPTH} levels deep", "more levels")
    try:
        document: Value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        _refuse_raw_placeholder(text)
        raise AlertError("body", f"valid JSON: {_hint(text, error.msg)}", f"a mistake in line {error.lineno}") from None
    except RecursionError:  # only when the caller's own stack is nearly full
        raise AlertError("body", "JSON that is not nested", "too many levels") from None
    if isinstance(document, list):
        raise AlertError("body", "one alert, not a batch: send one order per alert", document)
    if not isinstance(document, dict):
        raise AlertError("body", "a JSON object", "a single value")
    if _SIGN_OF_TROUBLE.search(text):
        _check(document)
    return document


# Without one of these in the text there can be no placeholder, NaN, lone surrogate or NUL in what was decoded.
_SIGN_OF_TROUBLE = re.compile(r"\{\{|\\u|NaN|Infinity")


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _refuse_duplicate(name for name, _ in pairs)
    return fields


def _refuse_duplicate(names: Iterator[str]) -> NoReturn:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            break
        seen.add(name)
    raise AlertError(name, "each field once", "the same field twice")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=JsonNumber, parse_int=JsonNumber, parse_constant=JsonNumber
)

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


def is_too_deep(text: str) -> bool:
    """Known before decoding, as the decoder would run out of stack."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _BRACKETS.finditer(text):
        bracket = found[0]
        depth += (bracket in "[{") - (bracket in "]}")
        if depth > MAX_DEPTH:
            return True
    return False


# What people really send, and what to tell them.
_HINTS = (
    (re.compile(r"[“”„‟]"), "use straight quotes, not “smart” ones"),
    (re.compile(r",\s*[}\]]"), "remove the comma before the closing bracket"),
    (re.compile(r"[:{,]\s*'"), "use double quotes, not single ones"),
    (re.compile(r'"\s*='), "write a colon, not ="),
    (re.compile(r":\s*-?[0-9.]+\s*[*+/-]"), "TradingView does not calculate: write the result, or leave the field out"),
    (re.compile(r":\s*[,}]"), "a placeholder that is empty needs quotes around it"),
)


def _hint(text: str, message: str) -> str:
    return next((hint for pattern, hint in _HINTS if pattern.search(text)), message)


# --- what must be nowhere ----------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"\{\{[^{}]{0,200}(?:\}\}?)?")
# The name in front of it, in JSON and in key=value text. Strict, as a looser one could show a part of a secret.
_FIELD_BEFORE = re.compile(r"[\"“]([\w.-]{1,60})[\"”]\s*:\s*[\"“]?[^\"“”:]*\Z|(?:\A|[\s;&])([\w.-]{1,60})=[^\s=;&]*\Z")
_UNEXPANDED = "a value: TradingView did not fill in this placeholder, there is none of this name for this kind of alert"
_NO_NUMBER = "a plain number (where there is none, leave the field out: Pine prints `na` as NaN)"


def _check(value: Value, path: str = "") -> None:
    """No placeholder, NaN, lone surrogate or NUL in any name or value, known field or not."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_string(name, "body")
            _check(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, path)
    elif isinstance(value, JsonNumber):
        if value.endswith(("NaN", "Infinity")):
            raise AlertError(path, _NO_NUMBER, value)
    elif isinstance(value, str):
        _check_string(value, path)


def _check_string(text: str, path: str) -> None:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise AlertError(path, "text without NUL and half characters (unpaired surrogates)", "one of them")
    if found := _PLACEHOLDER.search(text):
        raise _unexpanded(path, found[0])


def _refuse_raw_placeholder(text: str) -> None:
    if found := _PLACEHOLDER.search(text):
        before = _FIELD_BEFORE.search(text[: found.start()])
        raise _unexpanded((before[1] or before[2]) if before else "body", found[0])


def _unexpanded(path: str, placeholder: str) -> AlertError:
    is_secret = squeeze(path.rpartition(".")[2]) in SECRET_FIELDS
    return AlertError(path, _UNEXPANDED, "a placeholder" if is_secret else placeholder)


# --- plain text --------------------------------------------------------------------------------------------------
# Refusals here do not show what was seen: in free text, anything may be the secret.

_UNSHOWN = "plain text"


def read_text(text: str) -> dict[str, str]:
    for looks_like, read in _DIALECTS:
        if looks_like.match(text):
            return read(text)
    raise AlertError("body", _TEXT_WANTED, _UNSHOWN)


_PAIR_SEPARATORS = re.compile(r"[;&\r\n]+")
# `signal=long,symbol=EURUSD,qty=1`: only where every piece between the commas is a pair.
_COMMA_PAIRS = re.compile(r"[A-Za-z_][\w.-]*=[^=,;&\r\n]*(?:,\s*[A-Za-z_][\w.-]*=[^=,;&\r\n]*)+")
_PAIR_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_SPACED_PAIR = re.compile(r"([A-Za-z_][\w.-]*)=(\"[^\"]*\"|'[^']*'|[^\s\"']\S*|)(?:\s+|\Z)")
_PAIRS_WANTED = "key=value pairs, with quotes around values that have spaces"


def read_pairs(text: str) -> dict[str, str]:
    """`symbol=BTCUSDT side=buy`, or one pair a line, or separated by `,`, `;` or `&` (then URL-encoded)."""
    if _COMMA_PAIRS.fullmatch(text):
        text = text.replace(",", ";")
    is_url_encoded = "&" in text and not re.search(r"[;\s]", text)
    fields: dict[str, str] = {}
    for part in filter(None, map(str.strip, _PAIR_SEPARATORS.split(text))):
        for name, value in _pairs_of(part):
            _add(fields, name.lower(), unquote_plus(value) if is_url_encoded else value)
    if "signal" in fields and "volume" in fields:
        # OctoBot's dialect: here the volume is the size of the order.
        _add(fields, "order_size", fields.pop("volume"))
    return fields


def _pairs_of(part: str) -> Iterator[tuple[str, str]]:
    """One pair, whose value may have spaces; or several, separated by spaces."""
    name, equals, value = (piece.strip() for piece in part.partition("="))
    is_one_pair = equals and _PAIR_NAME.fullmatch(name) and _is_one_value(value)
    return iter([(name, _unquoted(value))]) if is_one_pair else _spaced_pairs(part)


def _is_one_value(value: str) -> bool:
    if value[:1] in ("'", '"'):
        return value.find(value[0], 1) == len(value) - 1
    return not any(char in value for char in "='\"") or not any(map(str.isspace, value))


def _spaced_pairs(part: str) -> Iterator[tuple[str, str]]:
    end = 0
    while end < len(part):
        found = _SPACED_PAIR.match(part, end)
        if found is None:
            raise AlertError("body", _PAIRS_WANTED, _UNSHOWN)
        yield found[1], _unquoted(found[2])
        end = found.end()


def _unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in ("'", '"') else value


def _add(fields: dict[str, str], name: str, value: str) -> None:
    if name in fields:
        raise AlertError(name, "each field once", "the same field twice")
    fields[name] = value


# `LicenseID,buy,US100,sl=10,tp=20,risk=1`: https://docs.pineconnector.com/low-code-intermediate
_PINECONNECTOR = {"sl": "stop_loss_offset", "tp": "take_profit_offset", "risk": "risk_percent", "comment": "comment"}


def read_pineconnector(text: str) -> dict[str, str]:
    """Its first field is the credential. Distances are in pips, `risk` in percent."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 3 or len(text.splitlines()) > 1:
        raise AlertError("body", "PineConnector text on one line: license,action,symbol,name=value …", _UNSHOWN)
    fields = {"secret": parts[0], "action": parts[1], "symbol": parts[2]}
    for part in parts[3:]:
        name, equals, value = part.partition("=")
        if not equals or name not in _PINECONNECTOR:
            raise AlertError("body", f"PineConnector parameters out of {', '.join(_PINECONNECTOR)}", _UNSHOWN)
        _add(fields, _PINECONNECTOR[name], value)
    return fields


# https://alertatron.com/docs, as used in github:alleyway/add-tradingview-alerts-tool
_ALERTATRON = re.compile(r"(\w+)\(([^(){}]*)\)\s*\{([^{}]*)\}\s*(?:#\w+)?")
_ALERTATRON_COMMAND = re.compile(r"\s*(\w+)\(([^()]*)\)\s*")
_ALERTATRON_SIZES = {"%": "equity_percent", "%a": "equity_percent", "%p": "position_percent", "": "quantity"}
_ALERTATRON_SIZE = re.compile(r"([0-9.]+)(%[ap]?|)")
_ALERTATRON_WANTED = (
    "an Alertatron script of one market(side=…, amount=…) and at most one protective stopOrder "
    "and limit, each with the other side, amount=100%p and offset=…%"
)
_PROTECTION_COMMANDS = {"stopOrder": "stop_loss_percent", "limit": "take_profit_percent"}


def read_alertatron(text: str) -> dict[str, str]:
    """An entry at market with its protection. Scripts of several steps are programs, not alerts: refused."""
    script = _ALERTATRON.fullmatch(text)
    commands = [_alertatron_command(part) for part in script[3].split(";") if part.strip()] if script else []
    if script is None or not commands or commands[0][0] != "market" or set(commands[0][1]) != {"side", "amount"}:
        raise AlertError("body", _ALERTATRON_WANTED, _UNSHOWN)
    entry = commands[0][1]
    fields = {"account": script[1], "symbol": script[2], "action": entry["side"], "type": "market"}
    if (size := _ALERTATRON_SIZE.fullmatch(entry["amount"])) is None:
        raise AlertError("amount", "a size such as 0.5, 50% (of the balance) or 100%p (of the position)")
    fields[_ALERTATRON_SIZES[size[2]]] = size[1]
    other_side = {"buy": "sell", "sell": "buy"}.get(entry["side"])
    for command, arguments in commands[1:]:
        offset = arguments.pop("offset", "")
        if command not in _PROTECTION_COMMANDS or arguments != {"side": other_side, "amount": "100%p"}:
            raise AlertError("body", _ALERTATRON_WANTED, _UNSHOWN)
        if not offset.endswith("%"):
            raise AlertError("offset", "a distance in percent such as 2%")
        _add(fields, _PROTECTION_COMMANDS[command], offset)
    return fields


def _alertatron_command(part: str) -> tuple[str, dict[str, str]]:
    command = _ALERTATRON_COMMAND.fullmatch(part)
    if command is None:
        raise AlertError("body", _ALERTATRON_WANTED, _UNSHOWN)
    arguments: dict[str, str] = {}
    for argument in command[2].split(","):
        name, _, value = argument.partition("=")
        _add(arguments, name.strip(), value.strip())
    return command[1], arguments


def read_line(text: str) -> dict[str, str]:
    """`buy BTCUSDT QTY:0.05 SL:40000`, `buy BTCUSDT at 67432.5`, or whook's `account ETH/USDT buy 300$ x3`."""
    if len(text.splitlines()) > 1:
        raise AlertError("body", "one order on one line, not a batch", _UNSHOWN)
    words = text.split()
    return _verb_first(words) if squeeze(words[0]) in VERBS else _account_first(words)


def _verb_first(words: list[str]) -> dict[str, str]:
    fields = {"action": words[0], "symbol": words[1]}
    rest = iter(words[2:])
    for word in rest:
        name, _, value = word.partition(":")
        if word.lower() == "at":
            name, value = "price", next(rest, "")
        if squeeze(name) not in FIELDS or not value:
            raise AlertError("body", _TEXT_WANTED, _UNSHOWN)
        _add(fields, name.lower(), value)
    return fields


# https://github.com/germangar/whook: `account SYMBOL` and then words in any order. It trades perpetuals only.
_WHOOK_WORDS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"(buy|sell|long|short|close|pos)", re.IGNORECASE), ("action",)),
    (re.compile(r"()(?:x([0-9.]+)|([0-9.]+)x)", re.IGNORECASE), ("", "leverage", "leverage")),
    (re.compile(r"(limit):([^:]+):([^:]+)", re.IGNORECASE), ("type", "order_id", "price")),
    (re.compile(r"(cancel):all", re.IGNORECASE), ("action",)),
    (re.compile(r"(cancel):([^:]+)", re.IGNORECASE), ("action", "order_id")),
    (re.compile(r"([0-9.]+)\$"), ("margin",)),
    (re.compile(r"(-?[0-9.]+[%@]?)"), ("quantity",)),
)
_WHOOK_WANTED = "a whook line: account SYMBOL buy|sell|close|pos|cancel:all|limit:id:price, a size, x<leverage>"


def _account_first(words: list[str]) -> dict[str, str]:
    fields = {"account": words[0], "symbol": words[1], "market": "perp"}
    for word in words[2:]:
        for name, value in _whook_word(word):
            _add(fields, name, value)
    if "action" not in fields:
        raise AlertError("body", _TEXT_WANTED, _UNSHOWN)
    if fields["action"].lower() == "pos" and "quantity" in fields:
        fields["position_size"] = fields.pop("quantity")
    return fields


def _whook_word(word: str) -> list[tuple[str, str]]:
    for pattern, names in _WHOOK_WORDS:
        if found := pattern.fullmatch(word):
            return [(name, value) for name, value in zip(names, found.groups(), strict=True) if name and value]
    raise AlertError("body", _WHOOK_WANTED, _UNSHOWN)


# What TradingView writes when the message of a strategy's alert is left as it is:
# {strategy} (its inputs): order {{strategy.order.action}} @ {{strategy.order.contracts}} filled on {{ticker}}. New
# strategy position is {{strategy.position_size}}
_FILL = re.compile(
    r"order (?P<action>buy|sell) @ (?P<contracts>[0-9.]{1,40}) filled on (?P<symbol>\S{1,60})\. "
    r"New strategy position is (?P<position_size>-?[0-9.]{1,40})\.?",
    re.IGNORECASE,
)


def read_fill(text: str) -> dict[str, str]:
    """TradingView's own message: the order, and the position that it leads to."""
    start = text.lower().rfind("order ")
    before, fill = text[:start].rstrip(), _FILL.fullmatch(text, start)
    if fill is None or before[-1:] not in ("", ":"):
        raise AlertError("body", "TradingView's own message of an order, on one line and unchanged", _UNSHOWN)
    fields = fill.groupdict()
    if strategy := before[:-1].partition(" (")[0].strip():
        fields["strategy"] = strategy
    return fields


_DIALECTS = (
    (re.compile(r"(?:.*: ?)?order (?:buy|sell) @ ", re.IGNORECASE), read_fill),
    (re.compile(r"[^\s,=]+,"), read_pineconnector),
    (re.compile(r"\w+\([^()]*\)\s*\{"), read_alertatron),
    (re.compile(r"[A-Za-z_][\w.-]*\s*="), read_pairs),
    (re.compile(r"\S+\s+\S"), read_line),
)
