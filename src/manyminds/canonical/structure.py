"""Which JSON value a text gives. Knows no schema."""

import json
import re
from typing import Any

from manyminds.canonical.prose import spoken

__all__ = ["structure"]

_CHARS = 65_536
_DEPTH = 32
_STARTS = 32  # places tried as the beginning of a value


def structure(text: str) -> str | None:
    """The text as a JSON value, else its fenced block, else the first value within; keys sorted.

    Abstains from what is not JSON (NaN, a key twice), from more than 64 Ki characters and 32 levels.
    """
    if len(text) > _CHARS:
        return None
    answer = spoken(text)
    fenced = re.search(r"(?is)```(?:json)?[^\S\n]*\n(.*?)```", answer)
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_double, parse_constant=_refuse)
    for part in (text, answer, fenced[1] if fenced else ""):
        try:
            return _dumped(decoder.decode(part.strip()))
        except (ValueError, RecursionError):
            continue
    starts = [m.start() for m in re.finditer(r"[{\[]", answer)]
    for start in starts[:_STARTS]:
        try:
            return _dumped(decoder.raw_decode(answer, start)[0])
        except (ValueError, RecursionError):
            continue
    return None


def _dumped(value: Any) -> str | None:
    """Sorted keys, no white space; None where it is nested too deep or is no Unicode."""
    level = [value]
    for _ in range(_DEPTH):
        level = [
            x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)
        ]
        if not level:
            break
    else:
        return None
    dumped = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return None if re.search("[\ud800-\udfff]", dumped) else dumped


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _double(digits: str) -> float | int:
    """1.0, 1e0 and 1 are one number to JSON."""
    value = float(digits)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
