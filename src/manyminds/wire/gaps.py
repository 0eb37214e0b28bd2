"""What experts leave out of the events of a stream, and say twice, though clients need it otherwise.

Knows no query: what is said where the expert says nothing is given.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from manyminds.errors import GarbageError

__all__ = ["Gaps", "fill"]

# In JSON either is a key or the whole of a string: inside of a string, quotes are escaped.
_ROLE, _CALLS = b'"role"', b'"tool_calls"'
_NULL = msgspec.Raw(b"null")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_whole_number = msgspec.json.Decoder(int)
_encode = msgspec.json.Encoder().encode


def fill(fields: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Sets the fields of an object, decoded to the bytes of its fields, that are missing or null."""
    for name, value in defaults.items():
        if not _is_set(fields, name):
            fields[name] = value


def _is_set(fields: Mapping[str, Any], name: str) -> bool:
    return bool(fields.get(name, _NULL) != _NULL)


class Gaps:
    """Fills the events of one stream, in order. What needs nothing is relayed as it came.

    Every event gets `head`, and every choice its index, delta and finish reason. A choice's first delta has
    the role, and no other; each call of a tool has an index, and its first piece a type. An expert that
    left nothing out is not looked at again until it speaks of roles or tools, or finishes.

    Attributes:
        head: `id`, `object`, `created` and `model` of the events so far, else those given.
    """

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self._complete = False
        self._spoken: set[int] = set()  # choices whose role has been said
        self._calls: dict[int, _Calls] = {}  # by choice

    def filled(self, raw: bytes, *, last: bool = False) -> bytes:
        """An event's JSON with all that belongs into it. Raises: GarbageError."""
        if self._complete and not last and _ROLE not in raw and _CALLS not in raw:
            return raw
        try:
            fields: dict[str, Any] = _object.decode(raw)
            given = {name: fields[name] for name in self.head if _is_set(fields, name)}
            choices: list[dict[str, Any]] = _objects.decode(fields["choices"])
            changed = [self._fill(choice, i) for i, choice in enumerate(choices)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise GarbageError(f"an event that cannot be relayed: {error!s:.300}") from None
        self._complete = not any(changed) and len(given) == len(self.head)
        self.head |= given
        return raw if self._complete else _encode(fields | self.head | {"choices": choices})

    def said(self) -> bool:
        """Notes that an event which is not relayed is said by the first choice. True: it is its first."""
        first = 0 not in self._spoken
        self._spoken.add(0)
        return first

    def _fill(self, choice: dict[str, Any], place: int) -> bool:
        """Fills a choice. False: there was nothing to do."""
        index = _whole_number.decode(choice["index"]) if _is_set(choice, "index") else place
        delta: dict[str, Any] = _object.decode(choice["delta"]) if _is_set(choice, "delta") else {}
        changed = False
        if index in self._spoken:
            changed = delta.pop("role", None) is not None
        elif not _is_set(delta, "role"):
            delta, changed = delta | {"role": "assistant"}, True
        self._spoken.add(index)
        if _is_set(delta, "tool_calls"):
            changed |= self._calls.setdefault(index, _Calls()).fill(delta)
        if not (changed or {"index", "delta", "finish_reason"} - choice.keys()):
            return False
        choice["index"], choice["delta"] = index, delta
        choice.setdefault("finish_reason", None)
        return True


class _Calls:
    """The calls of tools of one choice, by index."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._highest = -1

    def fill(self, delta: dict[str, Any]) -> bool:
        """Fills the pieces of calls in a delta. Without an index, a piece with an id begins a call."""
        pieces: list[dict[str, Any]] = _objects.decode(delta["tool_calls"])
        changed = False
        for piece in pieces:
            if _is_set(piece, "index"):
                index = _whole_number.decode(piece["index"])
            else:
                index = piece["index"] = self._highest + 1 if _is_set(piece, "id") else max(self._highest, 0)
                changed = True
            if index not in self._known and not _is_set(piece, "type"):
                piece["type"], changed = "function", True
            self._known.add(index)
            self._highest = max(self._highest, index)
        if changed:
            delta["tool_calls"] = pieces
        return changed
