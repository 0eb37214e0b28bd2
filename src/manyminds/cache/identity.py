"""What makes two requests the same one, down to the byte: who asks, whom, under which limits, and what.

Pure. Knows no answer and keeps nothing.
"""

from hashlib import sha256
from typing import Any, Final

import msgspec

from manyminds.types import Query

__all__ = ["identify", "is_repeatable", "lone_question", "setting"]

_MOST_BYTES: Final = 262_144  # of a request: what is longer is a document, and hashing it holds up the others
_ELSEWHERE: Final = ("model", "models", "manyminds")  # read into the query, with what this network adds
_IDLE: Final = (
    *("stream", "stream_options", "user", "metadata", "store"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
)
"""Fields that no model reads: how the reply is sent, and whose books it is in."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder(order="sorted").encode


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str


_turns = msgspec.json.Decoder(list[_Turn])


def is_repeatable(query: Query) -> bool:
    """Whether an answer that was given before is what the caller wants.

    Not of one who asks for several, or who sets a temperature and no seed: he wants them to differ.
    """
    sampling = query.sampling
    drawn = bool(sampling.temperature) and sampling.seed is None
    return sampling.n == 1 and not drawn and len(query.raw) <= _MOST_BYTES


def identify(query: Query, policy: str) -> bytes:
    """A sha256 that two requests share when nothing that could change the answer differs.

    The fields' order does not matter; within one it does, since models read a schema in its order.
    """
    return sha256(_encode([*_asked(query, policy), _fields(query)])).digest()


def setting(query: Query, policy: str) -> bytes:
    """The same without the question: requests that share it may be compared by what they ask."""
    fields = _fields(query) | {"messages": [[turn.role, turn.text] for turn in query.messages[:-1]]}
    return sha256(_encode(["near", *_asked(query, policy), fields])).digest()


def lone_question(query: Query) -> bool:
    """Whether it is one question in plain text, with nothing before it but instructions."""
    *before, last = query.messages
    if query.demands or last.role != "user" or any(t.role not in ("system", "developer") for t in before):
        return False
    if not query.raw:
        return True
    try:
        _turns.decode(_object.decode(query.raw)["messages"])
    except (msgspec.DecodeError, KeyError):  # parts, names, or what is newer than this
        return False
    return True


def _asked(query: Query, policy: str) -> tuple[Any, ...]:
    """By whom and of whom. Without a key a caller is nobody in particular, like all who have none."""
    limits = msgspec.to_builtins(query.limits)
    limits.pop("cache", None)  # what is said to the cache itself
    limits.pop("watch", None)  # which changes no answer
    for name in ("include", "exclude", "require"):
        limits[name] = sorted(limits[name])
    way = query.journey  # whose purpose, and the node that asks: owners may allow some only
    asker = (query.key.id if query.key else None, way.purpose if way else "", way.visited[-1:] if way else ())
    return asker, query.model, query.fallbacks, policy, limits


def _fields(query: Query) -> dict[str, Any]:
    if not query.raw:
        turns = [[turn.role, turn.text] for turn in query.messages]
        return {"messages": turns, "sampling": msgspec.to_builtins(query.sampling)}
    fields: dict[str, Any] = dict(_object.decode(query.raw))
    for name in (*_ELSEWHERE, *_IDLE):
        fields.pop(name, None)
    return fields
