"""Real requests and replies, and how to bend and break them.

Bodies are bent as JSON (fields gone, doubled, renamed, put where they do not belong, replaced by what JSON
can just say or just not) and as bytes.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from manyminds.wire import event

__all__ = ["REQUESTS", "TOKEN", "WHOLE", "bodies", "piece", "streamed", "streams"]

# --- real ones ---------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
REQUESTS: list[Any] = [
    {"model": "auto", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0.7, "seed": 7},
    {
        "model": "a",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "é"}, {"type": "image_url", "image_url": {}}],
            },
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "warm"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 64,
        "stop": ["END"],
        "n": 2,
        "logprobs": True,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "manyminds": {
            "weights": {"a": 0.1},
            "include": ["a"],
            "deadline_s": 10,
            "strategy": "vote",
            "panel": 3,
        },
    },
    {
        "model": "a",
        "prompt": ["Why?"],
        "logprobs": 2,
        "echo": False,
        "best_of": 1,
        "suffix": None,
        "max_tokens": 9,
    },
    {
        "model": "a",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "x"}],
            },
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "warm"}],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
        ],
        "instructions": "Be brief.",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}, "verbosity": "low"},
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "weather"}],
        },
        "reasoning": {"effort": "low"},
        "metadata": {"k": "v"},
        "include": ["message.output_text.logprobs"],
        "previous_response_id": None,
    },
    {
        "model": "a",
        "max_tokens": 64,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "source": {"media_type": "image/png", "data": "eA=="}}],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {"n": 1.5}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "warm"}]},
        ],
        "tools": [{"name": "weather", "input_schema": SCHEMA, "description": "Of a town."}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "ann"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    {"model": "auto", "input": ["Why?", "é"], "encoding_format": "base64", "dimensions": 64, "user": "ann"},
]
TOKEN = {
    "token": "Hi",
    "logprob": -0.1,
    "bytes": [72, 105],
    "top_logprobs": [{"token": "x", "logprob": -2.5}],
}
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m", "system_fingerprint": "fp"}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def streamed(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return HEAD | {"object": "chat.completion.chunk", "choices": [choice | more]}


def piece(arguments: str, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}} | more]}


STREAMS: list[list[Any]] = [
    [
        streamed({"role": "assistant", "content": ""}),
        streamed({"content": "Hi"}, logprobs={"content": [TOKEN], "refusal": None}),
        streamed({"content": " é", "reasoning_content": "Well."}),
        streamed({}, "stop"),
        HEAD | {"choices": [], "usage": USAGE, "timings": {"prompt_ms": 1.5, "predicted_ms": 20.25}},
    ],
    [
        streamed({"role": "assistant", "content": None, "tool_calls": [{"index": 0} | CALL]}),
        streamed(piece('{"city":')),
        streamed(piece(' "Bern"}')),
        streamed(
            {"tool_calls": [{"index": 1, "id": "call_2", "function": {"name": "time", "arguments": "{}"}}]}
        ),
        streamed({}, "tool_calls", index=0),
    ],
    [
        streamed({"refusal": "No."}),
        streamed({}, "content_filter", index=1),
        streamed({"content": "x"}, "length"),
    ],
]
MESSAGE = {"role": "assistant", "content": "Hi", "refusal": None}
WHOLE: list[Any] = [
    HEAD
    | {
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": MESSAGE, "logprobs": {"content": [TOKEN]}, "finish_reason": "stop"},
            {
                "index": 1,
                "message": MESSAGE | {"content": None, "tool_calls": [CALL]},
                "finish_reason": "length",
            },
        ],
        "usage": USAGE,
    },
    {"choices": [{"message": {"content": None, "tool_calls": [CALL, CALL]}, "finish_reason": "tool_calls"}]},
    {
        "choices": [{"message": {"refusal": "No."}}],
        "timings": {"prompt_ms": 1.5},
        "manyminds": {"cost_usd": 0.3},
    },
    {"error": {"message": "out of luck", "type": "t", "param": None, "code": 7}},
]

# --- bent and broken ones ----------------------------------------------------------------------------------


class Pairs(list[tuple[bytes, Any]]):
    """An object whose names may come twice, as they are written."""


@dataclass(frozen=True)
class Token:
    """JSON, or what is none, as it is written."""

    raw: bytes


DEEP = 3000
TOKENS = [
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"-0",
        b"01",
        b"1.",
        b".5",
        b"0.1e1",
    ),
    *(
        b"9223372036854775808",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"9" * 400,
        b"1" + b"0" * 5000,
    ),
    *(
        b'"\\ud800"',
        b'"\\udfff\\ud800"',
        b'"\\u0000"',
        b'"\x00"',
        b'"\n"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\x"',
    ),
    *(
        b"",
        b'""',
        b"null",
        b"true",
        b"false",
        b"0",
        b"-1",
        b"2",
        b"1.5",
        b"[]",
        b"{}",
        b"[null]",
        b"[[]]",
        b"[{}]",
    ),
    *(
        b'{"type": 1}',
        b'{"type": null}',
        b'{"role": []}',
        b'{"": ""}',
        b'{"\\ud800": 1}',
        b'"\xe2\x80\xa8"',
        b"//",
    ),
    *(
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'"' + b"a" * 5000 + b'"',
    ),
    *(
        b"\xef\xbb\xbf",
        b"\r",
        b"\n\n",
        b"data: ",
        b"[DONE]",
        b",",
        b":",
        b'"',
        b"\\",
        b"}",
        b"]",
        b"\x00",
        b"\xf0\x9f",
    ),
]


def tree(value: Any) -> Any:
    """JSON as it can be bent."""
    if isinstance(value, dict):
        return Pairs((json.dumps(name).encode(), tree(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return [tree(inner) for inner in value]
    return Token(json.dumps(value, ensure_ascii=False).encode())


def dumped(value: Any) -> bytes:
    if isinstance(value, Pairs):
        return b"{" + b", ".join(name + b": " + dumped(inner) for name, inner in value) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(map(dumped, value)) + b"]"
    assert isinstance(value, Token)
    return value.raw


def places(value: Any) -> Iterator[tuple[list[Any], int]]:
    """Every place in which a value stands: its list, and where in it."""
    if isinstance(value, list):
        for at, entry in enumerate(value):
            yield value, at
            yield from places(entry[1] if isinstance(value, Pairs) else entry)


POOL: list[Any] = [
    entry[1] if isinstance(holder, Pairs) else entry
    for seed in (*REQUESTS, *WHOLE, *STREAMS)
    for holder, at in places([tree(seed)])
    for entry in [holder[at]]
] + [Token(raw) for raw in TOKENS]
NAMES = sorted(
    {name for value in POOL if isinstance(value, Pairs) for name, _ in value} | {b'"manyminds"', b"1"}
)
Edit = tuple[int, int, int]


def bent(value: Any, edits: Sequence[Edit]) -> bytes:
    """The JSON after these edits: which place, what is done there, and with what."""
    root = [tree(value)]
    for place, act, what in edits:
        found = list(places(root))
        if not found:
            break
        holder, at = found[place % len(found)]
        named = isinstance(holder, Pairs)
        name, old = holder[at] if named else (b"", holder[at])
        other = deepcopy(POOL[what % len(POOL)])
        new: list[Any] = [[other], [], [old, other], [other, old], [[old]], [Pairs([(b'"x"', old)])]][act % 6]
        if named and act % 7 == 0:
            name, new = NAMES[what % len(NAMES)], [old]
        holder[at : at + 1] = [(name, value) for value in new] if named else new
    return b" ".join(map(dumped, root))


def broken(raw: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes after these edits."""
    for place, act, what in edits:
        at, size = place % (len(raw) + 1), what % 40
        token = TOKENS[what % len(TOKENS)]
        middle = [token, b"", raw[at : at + size] * 2, bytes([what % 256]), raw[:size]][act % 5]
        raw = raw[:at] + middle + raw[at + (size if act % 2 else 0) :]
    return raw


edits = st.lists(st.tuples(st.integers(0, 999), st.integers(0, 41), st.integers(0, 999)), max_size=4)
breaks: st.SearchStrategy[list[Edit]] = st.just([]) | st.lists(
    st.tuples(st.integers(0, 9999), st.integers(0, 9), st.integers(0, 999)), max_size=3
)


def bodies(seeds: Sequence[Any]) -> st.SearchStrategy[bytes]:
    made = st.builds(bent, st.sampled_from(seeds), edits)
    return st.builds(broken, made, breaks)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Bytes of a stream, and where they are cut."""
    seeds = draw(st.sampled_from(STREAMS))
    sent = b"".join(event(bent(seed, draw(edits))) for seed in seeds) + draw(
        st.sampled_from([b"", event(b"[DONE]")])
    )
    sent = broken(sent, draw(breaks))
    return sent, sorted(draw(st.lists(st.integers(0, len(sent)), max_size=6)))
