"""One way of asking an expert: what it adds to a question, and what becomes of several samples."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import sandbox
from manyminds.canonical import answer_of
from manyminds.errors import DataError, GarbageError, RefusedError
from manyminds.experts.asked import WAYS, Asked, variant
from manyminds.types import Card, Chunk, Message, Query, Samples, Sampling, Scores, Task, Usage
from tests.changed import replace

_NUMBER = Task("number")
_OPTIONS = Task("option", ("red", "blue", "green"), "Which colour?")


class _Model:
    """Notes what it is asked, and gives its answers in turn."""

    def __init__(self, samples: Samples | None = None, *, texts: Sequence[str] = ("4",)) -> None:
        self.card = Card("small", "local", offers=frozenset({"score", "samples", "grammar", "tools"}))
        self.asked: list[Query] = []
        self.counts: list[int] = []
        self._samples = samples
        self._texts = list(texts)

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.asked.append(query)
        yield Chunk(self._next())
        yield Chunk("", "stop", Usage(3, 1, 0.5, 0.1))

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        self.asked.append(query)
        return Scores(tuple(-float(i) for i in range(len(options))), Usage(3, 1))

    async def sample(self, query: Query, count: int) -> Samples:
        self.asked.append(query)
        self.counts.append(count)
        if self._samples is not None:
            return self._samples
        return Samples((self._next(),), ("stop",), Usage(3, 1, 0.5, 0.1), (-2.0,))

    def _next(self) -> str:
        return self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]


def _query(task: Task, **sampling: object) -> Query:
    messages = (Message("user", "hello"), Message("assistant", "hi"), Message("user", "What is 2 + 2?"))
    return Query(messages, task=task, raw=b'{"user":"me"}', sampling=Sampling(**sampling))  # type: ignore[arg-type]


def _said(asked: Asked, query: Query) -> list[Chunk]:
    async def listen() -> list[Chunk]:
        return [chunk async for chunk in asked.stream(query)]

    return asyncio.run(listen())


def test_a_way_is_named_after_its_expert() -> None:
    asked = Asked(_Model(), WAYS["cot"])
    assert (asked.card.name, asked.card.variant_of, asked.card.source) == ("small:cot", "small", "small")
    assert variant("small:cot") == ("small", "cot")
    assert variant("qwen:7b") is None
    assert variant(":cot") is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["text", "json", "exact"])
def test_what_is_not_compared_is_passed_on_untouched(way: str, kind: str) -> None:
    model, query = _Model(), _query(Task(kind))  # type: ignore[arg-type]
    _said(Asked(model, WAYS[way]), query)
    (asked,) = model.asked
    assert asked.messages == query.messages
    assert asked.sampling == Sampling(temperature=0.0)
    assert msgspec.json.decode(asked.raw) == {"user": "me", "temperature": 0.0}
    warm = _query(Task(kind), temperature=0.9)  # type: ignore[arg-type]
    _said(Asked(model, WAYS[way]), warm)
    assert model.asked[1] is warm


def test_direct_asks_for_the_number_alone_under_a_grammar() -> None:
    model = _Model()
    _said(Asked(model, WAYS["direct"]), _query(_NUMBER))
    (query,) = model.asked
    assert query.messages[-1].text == "What is 2 + 2?\n\nReply with the number only."
    assert [message.text for message in query.messages[:2]] == ["hello", "hi"]
    assert query.sampling.grammar.startswith("root ::=")
    assert query.sampling.temperature == 0.0
    assert query.raw == b""


@pytest.mark.parametrize("way", WAYS)
def test_options_are_chosen_alike_in_every_way(way: str) -> None:
    model = _Model()
    asked = Asked(model, WAYS[way])
    _said(asked, _query(_OPTIONS))
    assert model.asked[0].sampling.grammar == "root ::= [A-C]"
    assert model.asked[0].messages[-1].text.endswith("Reply with the letter only.")
    assert "score" in asked.card.offers
    assert not asked.card.offers & {"tools", "image", "n", "samples"}


def test_step_by_step_has_no_grammar() -> None:
    model = _Model()
    _said(Asked(model, WAYS["cot"]), _query(_NUMBER))
    assert model.asked[0].sampling.grammar == ""
    assert "Think step by step" in model.asked[0].messages[-1].text


@pytest.mark.parametrize(("way", "shown"), [("code", 4), ("code3", 4), ("cot", 3), ("cot3", 3)])
def test_examples_are_shown_before_the_conversation(way: str, shown: int) -> None:
    model = _Model(Samples(("",) * 3, ("stop",) * 3, Usage()) if way.endswith("3") else None)
    asked = Asked(model, WAYS[way], run=lambda program: 4)
    query = replace(_query(_NUMBER), messages=(Message("system", "Be kind."), *_query(_NUMBER).messages))
    _said(asked, query)
    messages = model.asked[0].messages
    assert (messages[0].text, messages[-3].text) == ("Be kind.", "hello")
    assert "What is 2 + 2?" in messages[-1].text
    examples = messages[1:-3]
    assert [message.role for message in examples] == ["user", "assistant"] * shown
    assert asked.wish(_NUMBER).startswith(examples[0].text)
    assert asked.wish(Task("span")) != asked.wish(_NUMBER)
    assert "eggs" not in Asked(model, WAYS["direct"]).wish(_NUMBER)


@pytest.mark.parametrize(
    ("task", "answers"), [(_NUMBER, ["29", "1200", "48"]), (Task("span"), ["kim", "aunt", "saturday"])]
)
def test_the_steps_shown_end_in_their_answers(task: Task, answers: list[str]) -> None:
    model = _Model()
    _said(Asked(model, WAYS["cot"]), _query(task))
    shown = [message.text for message in model.asked[0].messages if message.role == "assistant"][:-1]
    assert [answer_of(task, text) for text in shown] == answers


@pytest.mark.parametrize(
    ("task", "answers"),
    [(_NUMBER, ["4", "29", "-10.5", "48"]), (Task("span"), ["thursday", "apple, fig, pear", "pmal"])],
)
def test_the_programs_shown_find_their_answers(task: Task, answers: list[str]) -> None:
    sandbox.need()
    shown = _Model()
    _said(Asked(shown, WAYS["code"], run=lambda program: 4), _query(task))
    programs = [message.text for message in shown.asked[0].messages if message.role == "assistant"][:-1]
    for program, answer in zip(programs, answers, strict=True):
        (chunk,) = _said(Asked(_Model(texts=[program]), WAYS["code"]), _query(task))
        assert answer_of(task, chunk.text) == answer_of(task, f"Answer: {answer}")
        assert chunk.confidence == pytest.approx(math.exp(-2.0))  # of the program: so it was one


def test_what_the_caller_has_set_is_kept() -> None:
    model = _Model()
    _said(Asked(model, WAYS["cot"]), _query(_NUMBER, max_tokens=7, temperature=1.5, top_p=0.3, seed=11))
    sampling = model.asked[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (7, 1.5, 0.3, 11)
    _said(Asked(model, WAYS["cot"]), _query(_NUMBER, max_tokens=100_000))
    assert model.asked[1].sampling.max_tokens == WAYS["cot"].max_tokens


def test_a_word_is_as_sure_as_the_expert_finds_it_likely() -> None:
    (chunk,) = _said(Asked(_Model(texts=["4"]), WAYS["direct"]), _query(_NUMBER))
    assert (chunk.text, chunk.finish_reason) == ("4", "stop")
    assert chunk.confidence == pytest.approx(math.exp(-2.0))
    (chunk,) = _said(Asked(_Model(texts=["I do not know."]), WAYS["direct"]), _query(_NUMBER))
    assert (chunk.text, chunk.confidence) == ("I do not know.", 0.0)
    plain = _Model(texts=["4"])
    plain.card = replace(plain.card, offers=frozenset())
    assert [chunk.confidence for chunk in _said(Asked(plain, WAYS["direct"]), _query(_NUMBER))] == [
        None,
        None,
    ]


def test_options_are_rated_by_the_expert_itself() -> None:
    scores = asyncio.run(Asked(_Model(), WAYS["direct"]).score(_query(_OPTIONS), ("red", "blue")))
    assert scores.log_likelihoods == (-0.0, -1.0)


@pytest.mark.parametrize(
    ("texts", "reasons", "text", "share"),
    [
        (("Answer: 3", "so Answer: 4", "Answer: 4"), ("stop",) * 3, "so Answer: 4", 2 / 3),
        (("Answer: 3", "Answer: 4", "Answer: 5"), ("stop",) * 3, "Answer: 3", 1 / 3),
        (("Answer: 3", "Answer: 4", "Answer: 4"), ("stop", "length", "length"), "Answer: 3", 1 / 3),
        (("I think", "who knows", "hm"), ("stop",) * 3, "I think", 0.0),
        (("I think", "Answer: 2", "hm"), ("stop",) * 3, "Answer: 2", 1 / 3),
    ],
)
def test_most_samples_decide(
    texts: tuple[str, ...], reasons: tuple[str, ...], text: str, share: float
) -> None:
    usage = Usage(10, 30, 2.5, 0.1)
    model = _Model(Samples(texts, reasons, usage))
    (chunk,) = _said(Asked(model, WAYS["cot3"]), _query(_NUMBER))
    assert (chunk.text, chunk.finish_reason, chunk.usage) == (text, "stop", usage)
    assert chunk.confidence == pytest.approx(share)
    assert model.counts == [3]
    assert model.asked[0].sampling.temperature == WAYS["cot3"].temperature


@given(st.lists(st.sampled_from(["Answer: 1", "Answer: 2", "Answer: 3", "no idea"]), min_size=3, max_size=3))
def test_the_winner_has_most_samples(texts: list[str]) -> None:
    model = _Model(Samples(tuple(texts), ("stop",) * len(texts), Usage()))
    (chunk,) = _said(Asked(model, WAYS["cot3"]), _query(_NUMBER))
    assert chunk.text in texts
    counts = {text: texts.count(text) for text in texts if text != "no idea"}
    if counts:
        assert answer_of(_NUMBER, chunk.text) is not None
        assert counts[chunk.text] == max(counts.values())
        assert chunk.confidence == pytest.approx(counts[chunk.text] / len(texts))


_PROGRAM = "Sure:\n```python\nx = 6\nx * 7\n```\nThat is it."


def _coder(model: _Model, values: Mapping[str, object], way: str = "code") -> Asked:
    """Whose programs come to what is said here, by a part of them."""

    def run(program: str) -> object:
        return next((value for part, value in values.items() if part in program), None)

    return Asked(model, WAYS[way], run=run)


@pytest.mark.parametrize(
    ("value", "task", "answer"),
    [
        (42, _NUMBER, "42"),
        (163.73000000000002, _NUMBER, "163.73"),
        (-0.5, _NUMBER, "-0.5"),
        ("  Monday\n", Task("span"), "monday"),
        (True, Task("span"), "true"),
        (["b", "a"], Task("span"), "b, a"),
        ((3, 2, 1), Task("span"), "3, 2, 1"),
    ],
)
def test_a_program_is_run_and_its_result_is_the_answer(value: object, task: Task, answer: str) -> None:
    model = _Model(texts=[_PROGRAM])
    (chunk,) = _said(_coder(model, {"x * 7": value}), _query(task))
    assert chunk.text.startswith("```python\nx = 6\nx * 7\n```")
    assert answer_of(task, chunk.text) == answer_of(task, f"Answer: {answer}")
    assert chunk.finish_reason == "stop"
    assert chunk.confidence == pytest.approx(math.exp(-2.0))
    assert "whose last line computes the answer" in model.asked[0].messages[-1].text


def test_a_verdict_is_worded_as_the_question_words_it() -> None:
    (chunk,) = _said(_coder(_Model(texts=[_PROGRAM]), {"6": False}), _query(Task("span")))
    assert chunk.text.endswith("Answer: false")
    query = replace(_query(Task("span")), messages=(Message("user", "Is it so? Answer yes or no."),))
    (chunk,) = _said(_coder(_Model(texts=[_PROGRAM]), {"6": False}), query)
    assert chunk.text.endswith("Answer: no")


@pytest.mark.parametrize("value", [None, {}, [], [None], float("inf"), 10**50, "", " "])
def test_without_a_result_its_word_is_asked_for(value: object) -> None:
    model = _Model(texts=["2 * 3 + 6", "7"])
    (chunk,) = _said(_coder(model, {"6": value}), _query(_NUMBER))
    assert (chunk.text, chunk.confidence) == ("7", 0.0)
    assert chunk.usage == Usage(6, 2, 1.0, 0.2)
    assert "number only" in model.asked[1].messages[-1].text


def test_words_instead_of_a_program_are_an_answer() -> None:
    model = _Model(texts=["Robert-Gordon", "7"])
    (chunk,) = _said(_coder(model, {}), _query(Task("span")))
    assert (chunk.text, chunk.confidence, chunk.usage) == ("Robert-Gordon", 0.0, Usage(3, 1, 0.5, 0.1))
    (chunk,) = _said(_coder(model, {}), _query(_NUMBER))  # and no number
    assert chunk.text == "7"


def test_of_several_programs_most_results_decide() -> None:
    texts = ("x = 1", "x = 2", "x = 3")
    model = _Model(Samples(texts, ("stop",) * 3, Usage(10, 30)))
    (chunk,) = _said(_coder(model, {"= 1": 5, "= 2": 8, "= 3": 8}, "code3"), _query(_NUMBER))
    assert answer_of(_NUMBER, chunk.text) == "8"
    assert chunk.confidence == pytest.approx(2 / 3)
    assert "= 2" in chunk.text


def test_where_programs_cannot_be_run_it_refuses() -> None:
    def run(program: str) -> object:
        raise DataError("install bubblewrap")

    with pytest.raises(RefusedError, match="bubblewrap"):
        _said(Asked(_Model(), WAYS["code"], run=run), _query(_NUMBER))


def test_samples_that_do_not_fit_are_garbage() -> None:
    model = _Model(Samples(("Answer: 1",), (), Usage()))
    with pytest.raises(GarbageError):
        _said(Asked(model, WAYS["cot3"]), _query(_NUMBER))


def test_an_expert_that_cannot_do_it_refuses() -> None:
    class Plain:
        card = Card("plain", "openai")

        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            yield Chunk("4", "stop", Usage())

    with pytest.raises(RefusedError):
        _said(Asked(Plain(), WAYS["cot3"]), _query(_NUMBER))
    with pytest.raises(RefusedError):
        asyncio.run(Asked(Plain(), WAYS["direct"]).score(_query(_OPTIONS), ("a", "b")))
    assert _said(Asked(Plain(), WAYS["direct"]), _query(_NUMBER))[0].text == "4"


def test_who_is_spared_is_spared_in_every_way() -> None:
    class Spared(_Model):
        open_until = 7.0

    assert Asked(Spared(), WAYS["cot"]).open_until == 7.0
    assert Asked(_Model(), WAYS["cot"]).open_until is None


def test_what_it_does_not_answer_is_refused() -> None:
    model = _Model()
    model.card = replace(model.card, tasks=frozenset({"option"}))
    with pytest.raises(RefusedError, match="only answers tasks of kind option"):
        _said(Asked(model, WAYS["direct"]), _query(_NUMBER))
