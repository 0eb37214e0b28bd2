"""Answers that were given before: whom they may serve, how long, and which question is the same one."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import canonical
from manyminds.cache import Cache, Hit, Lookup
from manyminds.types import (
    Attribution,
    Chunk,
    Key,
    Limits,
    Message,
    PanelEntry,
    Query,
    Report,
    Status,
    Usage,
)
from manyminds.wire import parse_request
from tests.changed import replace

FIELDS: dict[str, Any] = {
    "model": "auto",
    "messages": [{"role": "user", "content": "How high is the tower of Pisa?"}],
    "max_tokens": 50,
}
HER, HIM = Key("k1", "her"), Key("k2", "him")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def cache(entries: int = 100, most_bytes: int = 2_000_000, **more: Any) -> Cache:
    return Cache(entries, most_bytes, 60.0, **more)


def asked(changes: dict[str, Any] | None = None, key: Key | None = HER, request_id: str = "r1") -> Query:
    fields = {name: value for name, value in (FIELDS | (changes or {})).items() if value is not None}
    query = parse_request(json.dumps(fields).encode(), request_id)
    return replace(query, key=key)


def question(text: str, vector: Sequence[float] | None = None, **changes: Any) -> Query:
    """A lone question with its task and its vector, as a gateway would hand it over."""
    query = asked({"messages": [{"role": "user", "content": text}]} | changes)
    unit = None if vector is None else np.array(vector, np.float32) / np.float32(np.linalg.norm(vector))
    return replace(query, task=canonical.task(query), vector=unit)


def report(*statuses: Status, sources: Sequence[str] = ("ann", "bob")) -> Report:
    statuses = statuses or ("ok", "ok")
    panel = tuple(
        PanelEntry(f"{source}-1", source, 0.5, "56 m", 0.9, 0.2, 1.5, 0.003, status)
        for source, status in zip(sources, statuses, strict=True)
    )
    owed = tuple(Attribution(source, 0.3, 1 / len(sources)) for source in sources)
    return Report("r0", "auto", "vote", panel, 1.0, 0.9, owed, 0.006, 0.001)


def answer(text: str = "56 m", end: str = "stop", told: Report | None = None) -> list[Chunk]:
    usage = Usage(10, 4, cpu_s=2.0, cost_usd=0.006)
    return [Chunk(text), Chunk("", end, usage, report=told or report())]


def leave(of: Cache, query: Query, chunks: Sequence[Chunk] | None = None, policy: str = "auto") -> bool:
    """What a gateway does where nothing was found."""
    lookup = found(of, query, policy)
    lookup.near(query)
    for chunk in answer() if chunks is None else chunks:
        lookup.take(chunk)
    return lookup.keep()


def found(of: Cache, query: Query, policy: str = "auto") -> Lookup:
    lookup = of.lookup(query, policy)
    assert lookup is not None
    return lookup


def exact(of: Cache, query: Query, policy: str = "auto") -> Hit | None:
    return found(of, query, policy).exact()


# --- the very same request -------------------------------------------------------------------------


def test_the_same_request_has_the_same_answer_for_nothing() -> None:
    kept = cache()
    assert exact(kept, asked()) is None
    assert leave(kept, asked())
    hit = exact(kept, asked(request_id="r2"))
    assert hit is not None
    assert (hit.text, hit.similarity, [chunk.text for chunk in hit.chunks]) == ("56 m", None, ["56 m", ""])
    told = hit.report
    assert (told.request_id, told.cache, told.cost_usd) == ("r2", "hit", 0.0)
    assert told.saved_usd == pytest.approx(0.007)  # what the best single expert would have cost
    assert told.attribution == report().attribution
    assert [(line.expert, line.answer, line.status) for line in told.panel] == [
        ("ann-1", "56 m", "ok"),
        ("bob-1", "56 m", "ok"),
    ]
    assert {(line.cost_usd, line.seconds, line.ttft_s) for line in told.panel} == {(0.0, 0.0, None)}
    last = hit.chunks[-1]
    assert (last.finish_reason, last.usage) == ("stop", Usage(10, 4))


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"user": "u-17"},
        {"metadata": {"trace": "x"}},
        {"store": True},
        {"safety_identifier": "h", "prompt_cache_key": "p"},
    ],
)
def test_what_no_model_reads_makes_no_difference(changes: dict[str, Any]) -> None:
    kept = cache()
    leave(kept, asked())
    assert exact(kept, asked(changes)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "max"},
        {"messages": [{"role": "user", "content": "How high is the tower of Pisa? "}]},
        {"messages": [{"role": "system", "content": "In feet."}, *FIELDS["messages"]]},
        {"messages": [{"role": "system", "content": "How high is the tower of Pisa?"}]},
        {"max_tokens": 51},
        {"max_tokens": None},
        {"temperature": 0},
        {"seed": 1},
        {"top_p": 0.1},
        {"stop": ["m"]},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"a_field_of_tomorrow": 1},
        {"manyminds": {"include": ["ann"]}},
        {"manyminds": {"exclude": ["ann"]}},
        {"manyminds": {"weights": {"ann": 0.5}}},
        {"manyminds": {"budget_usd": 0.1}},
        {"manyminds": {"deadline_s": 3}},
        {"manyminds": {"panel": 2}},
        {"manyminds": {"quorum": 2}},
        {"manyminds": {"strategy": "fuse"}},
        {"manyminds": {"topic": "law"}},
        {"manyminds": {"explain": True}},
    ],
)
def test_whatever_may_change_the_answer_makes_another_request(changes: dict[str, Any]) -> None:
    kept = cache()
    leave(kept, asked())
    assert exact(kept, asked(changes)) is None
    assert leave(kept, asked(changes))
    assert exact(kept, asked(changes)) is not None


def test_the_order_of_fields_and_of_names_is_free_and_that_of_a_schema_is_not() -> None:
    kept = cache()
    leave(kept, asked({"manyminds": {"include": ["ann", "bob"]}}))
    same = replace(asked({"manyminds": {"include": ["bob", "ann"]}}), raw=_backwards())
    assert exact(kept, same) is not None

    schema = {"reason": {"type": "string"}, "answer": {"type": "string"}}
    leave(kept, asked({"response_format": {"type": "json_schema", "json_schema": schema}}))
    turned = dict(reversed(schema.items()))
    assert exact(kept, asked({"response_format": {"type": "json_schema", "json_schema": turned}})) is None


def _backwards() -> bytes:
    return json.dumps(dict(reversed(FIELDS.items()))).encode()


def test_no_caller_learns_what_another_asked() -> None:
    kept = cache()
    leave(kept, asked(key=HER))
    assert exact(kept, asked(key=HIM)) is None
    assert exact(kept, asked(key=None)) is None
    leave(kept, asked(key=None))
    assert exact(kept, asked(key=None)) is not None
    assert exact(kept, asked(key=Key("None", "named so"))) is None
    assert exact(kept, asked(key=Key("", "named nothing"))) is None


def test_a_policy_has_its_own_answers() -> None:
    kept = cache()
    leave(kept, asked())
    assert exact(kept, asked(), "max") is None


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        ("private", {}),
        ("pass", {}),
        ("auto", {"n": 2}),
        ("auto", {"temperature": 0.7}),
        ("auto", {"messages": [{"role": "user", "content": "x" * 300_000}]}),
    ],
)
def test_what_has_nothing_to_do_with_the_cache(policy: str, changes: dict[str, Any]) -> None:
    assert cache().lookup(asked(changes), policy) is None


def test_experts_by_name_where_one_says_so_and_never_what_is_private() -> None:
    kept = cache(policies=("pass", "private"))
    assert kept.lookup(asked(), "private") is None
    assert kept.lookup(asked(), "auto") is None
    assert leave(kept, asked({"model": "ann-1"}), policy="pass")
    assert exact(kept, asked({"model": "ann-1"}), "pass") is not None
    assert exact(kept, asked({"model": "bob-1"}), "pass") is None


def test_a_seed_makes_a_temperature_repeatable() -> None:
    kept = cache()
    assert leave(kept, asked({"temperature": 0.7, "seed": 4}))
    assert exact(kept, asked({"temperature": 0.7, "seed": 4})) is not None
    assert exact(kept, asked({"temperature": 0.7, "seed": 5})) is None


def test_half_a_surrogate_pair_is_none_of_its_business() -> None:
    odd = Query((Message("user", "\ud800"),), limits=Limits(topic="\ud800"))
    assert cache().lookup(odd, "auto") is None


def test_a_query_that_was_made_here_has_no_bytes_and_is_kept_all_the_same() -> None:
    kept = cache()
    made = Query((Message("user", "How high is it?"),))
    leave(kept, made)
    assert exact(kept, made) is not None
    assert exact(kept, replace(made, messages=(Message("user", "How low is it?"),))) is None


# --- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [Chunk("56 m")],
        answer(end="length"),
        answer(end="content_filter"),
        answer(text=" \n"),
        [Chunk("56 m"), Chunk("", "stop", Usage())],
        answer(told=report("ok", "failed")),
        answer(told=report("ok", "cut")),
        answer(told=report("ok", "late")),
        answer(text="x" * 40_000),
    ],
    ids=["none", "no end", "length", "filter", "empty", "no report", "failed", "cut", "late", "huge"],
)
def test_an_answer_that_is_not_whole_is_not_kept(chunks: list[Chunk]) -> None:
    kept = cache()
    assert not leave(kept, asked(), chunks)
    assert (len(kept), kept.size_bytes) == (0, 0)


def test_calls_that_were_not_needed_do_no_harm_and_tool_calls_are_answers() -> None:
    kept = cache()
    assert leave(kept, asked(), answer(told=report("ok", "cancelled")))
    calls = [Chunk(raw=b'{"choices":[]}'), Chunk("", "tool_calls", Usage(), report=report())]
    assert leave(kept, asked({"seed": 1}), calls)


def test_a_huge_answer_is_let_go_of_on_its_way() -> None:
    kept = cache(most_bytes=160_000)
    lookup = found(kept, asked())
    for _ in range(100):
        lookup.take(Chunk(raw=b"x" * 1000))
    lookup.take(answer()[-1])
    assert not lookup.keep()


def test_a_new_answer_replaces_the_old_one_and_can_be_asked_for() -> None:
    kept = cache()
    leave(kept, asked())
    lookup = kept.lookup(asked(), "auto", read=False)
    assert lookup is not None
    assert lookup.exact() is None
    assert lookup.near(question("How high is the tower of Pisa?", [1, 0])) is None
    for chunk in answer("57 m"):
        lookup.take(chunk)
    assert lookup.keep()
    hit = exact(kept, asked())
    assert hit is not None
    assert hit.text == "57 m"
    assert len(kept) == 1


def test_one_piece_is_not_streamed_but_a_stream_serves_both() -> None:
    kept = cache(policies=("pass",))
    whole = [Chunk("56 m", "stop", Usage(1, 1), raw=b"{}", whole=True, report=report())]
    leave(kept, asked(), whole, "pass")
    assert exact(kept, asked(), "pass") is not None
    assert exact(kept, asked({"stream": True}), "pass") is None
    leave(kept, asked({"stream": True}), answer(), "pass")
    assert exact(kept, asked({"stream": True}), "pass") is not None
    assert exact(kept, asked(), "pass") is not None


# --- room and time ---------------------------------------------------------------------------------


def test_an_answer_grows_old() -> None:
    clock = Clock()
    kept = cache(clock=clock)
    leave(kept, asked())
    clock.now_s += 59.9
    hit = exact(kept, asked())
    assert hit is not None
    assert hit.age_s == pytest.approx(59.9)
    leave(kept, asked({"seed": 1}))
    clock.now_s += 0.1
    assert exact(kept, asked()) is None  # being used made it no younger
    assert len(kept) == 1
    clock.now_s += 60.0
    assert exact(kept, asked()) is None
    assert (len(kept), kept.size_bytes) == (0, 0)


def test_who_was_not_asked_for_longest_leaves_first() -> None:
    kept = cache(entries=2)
    for seed in (1, 2):
        leave(kept, asked({"seed": seed}))
    assert exact(kept, asked({"seed": 1})) is not None
    leave(kept, asked({"seed": 3}))
    assert [exact(kept, asked({"seed": seed})) is not None for seed in (1, 2, 3)] == [True, False, True]


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "read", "wait", "forget", "clear"]), st.integers(0, 6), st.integers(0, 3)
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 5), st.sampled_from([60_000, 200_000]))
def test_it_never_outgrows_its_room_and_never_gives_what_is_gone(
    steps: list[Step], entries: int, most_bytes: int
) -> None:
    """Held against a plain dictionary that forgets nothing by itself."""
    clock = Clock()
    kept = cache(entries, most_bytes, clock=clock, similarity=0.9)
    truth: dict[int, tuple[str, str, float]] = {}  # text, source, born
    for count, (what, number, more) in enumerate(steps):
        query = question(f"How high is tower {number} of the old town?", [1.0, 0.1 * more])
        if what == "keep":
            text, source = f"{count} " + "m" * 200 * more, f"s{more}"
            told = report("ok", sources=[source])
            if leave(kept, query, answer(text, told=told)):
                truth[number] = (text, source, clock.now_s)
        elif what == "read":
            hit = exact(kept, query)
            if hit is not None:
                text, _, born_s = truth[number]
                assert hit.text == text
                assert clock.now_s - born_s < 60
        elif what == "wait":
            clock.now_s += 9.7 * number
        elif what == "forget":
            source = f"s{more}"
            kept.forget(source)
            truth = {n: one for n, one in truth.items() if one[1] != source}
        else:
            kept.clear()
            truth.clear()
            assert kept.size_bytes == 0
        assert len(kept) <= min(entries, len(truth))
        assert 0 <= kept.size_bytes <= most_bytes
    kept.clear()
    assert (len(kept), kept.size_bytes) == (0, 0)


# --- sources ---------------------------------------------------------------------------------------


def test_what_a_source_had_a_part_in_leaves_with_it() -> None:
    kept = cache(similarity=0.9)
    leave(kept, question("How high is the tower of Pisa?", [1, 0]))
    leave(kept, asked({"seed": 1}), answer(told=report("ok", "ok", sources=("bob", "cid"))))
    leave(kept, asked({"seed": 2}), answer(told=report("ok", "cancelled", sources=("cid", "dan"))))
    assert kept.forget("nobody") == 0
    assert kept.forget("bob") == 2
    assert len(kept) == 1
    assert exact(kept, asked({"seed": 2})) is not None
    assert found(kept, asked()).near(question("how high is the tower of Pisa", [1, 0])) is None
    assert kept.forget("dan") == 1  # it was asked, and left the vote to others


@pytest.mark.parametrize("change", ["forget", "clear"])
def test_an_answer_on_its_way_is_not_kept_when_its_network_has_changed(change: str) -> None:
    kept = cache()
    lookup = found(kept, asked())
    if change == "forget":
        kept.forget("ann")
    else:
        kept.clear()
    for chunk in answer():
        lookup.take(chunk)
    assert not lookup.keep()
    assert leave(kept, asked())


# --- the same question in other words --------------------------------------------------------------

TOWER = "How high is the tower of Pisa?"


def near(of: Cache, query: Query) -> Hit | None:
    return found(of, query).near(query)


def test_the_same_words_and_a_like_vector_are_the_same_question() -> None:
    kept = cache(similarity=0.9)
    leave(kept, question(TOWER, [1, 0.1]))
    hit = near(kept, question("Please tell me how high the tower of pisa is, thanks!", [1, 0]))
    assert hit is None  # a word moved: the encoder cannot tell such a move from one that matters
    hit = near(kept, question("please tell me: how high is the tower of pisa", [1, 0]))
    assert hit is not None
    assert hit.text == "56 m"
    assert hit.similarity == pytest.approx(1 / np.sqrt(1.01), abs=1e-6)
    assert near(kept, question("how high is the tower of pisa", [1, 0.8])) is None


def test_of_several_the_likest_is_taken() -> None:
    kept = cache(similarity=0.5)
    for text, vector in (
        ("how high is the tower of Pisa", [1, 0.5]),
        ("how high is the tower of pisa?", [1, 0.1]),
    ):
        leave(kept, question(text, vector), answer(f"like {vector[1]}"))
    hit = near(kept, question(TOWER, [1, 0]))
    assert hit is not None
    assert hit.text == "like 0.1"


def test_words_alone_find_nothing_without_a_threshold_or_a_vector() -> None:
    kept = cache()
    leave(kept, question(TOWER, [1, 0]))
    assert near(kept, question(TOWER.lower(), [1, 0])) is None
    kept = cache(similarity=0.9)
    leave(kept, question(TOWER, [1, 0]))
    assert near(kept, question(TOWER.lower())) is None
    leave(kept, question("How deep is the lake of Como?"))
    assert near(kept, question("how deep is the lake of como", [1, 0])) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 9},
        {"manyminds": {"panel": 1}},
        {"messages": [{"role": "system", "content": "In feet."}, {"role": "user", "content": TOWER.lower()}]},
        {
            "messages": [
                {"role": "user", "content": "Let us talk of Pisa."},
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": TOWER.lower()},
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TOWER.lower()}]}]},
        {"messages": [{"role": "user", "content": TOWER.lower(), "name": "eve"}]},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
    ],
)
def test_all_else_must_be_equal_and_there_must_be_nothing_else(changes: dict[str, Any]) -> None:
    kept = cache(similarity=0.9)
    leave(kept, question(TOWER, [1, 0]))
    assert near(kept, question(TOWER.lower(), [1, 0])) is not None
    assert near(kept, question(TOWER.lower(), [1, 0], **changes)) is None


def test_instructions_may_come_first_where_they_are_the_same() -> None:
    kept = cache(similarity=0.9)
    system = {"role": "system", "content": "In feet."}
    leave(kept, question(TOWER, [1, 0], messages=[system, {"role": "user", "content": TOWER}]))
    again = question(TOWER, [1, 0], messages=[system, {"role": "user", "content": TOWER.lower()}])
    assert near(kept, again) is not None


def test_another_caller_is_not_told_by_likeness_either() -> None:
    kept = cache(similarity=0.9)
    leave(kept, question(TOWER, [1, 0]))
    assert near(kept, replace(question(TOWER.lower(), [1, 0]), key=HIM)) is None


def test_many_spellings_of_one_question_take_no_more_room_than_a_few() -> None:
    kept = cache(similarity=0.9)
    for blanks in range(1, 40):
        leave(kept, question(TOWER.replace(" ", " " * blanks), [1, 0]))
    assert len(kept) == 8
