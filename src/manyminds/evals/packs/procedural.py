"""Fresh tasks without end, made by the generators of the package reasoning-gym: any seed gives others.

Easy on purpose: each of three levels tells models of 0.1 to 1.5 billion parameters apart. Questions are the
generators' own, less their boilerplate, and worded so that live traffic would compare answers to them
alike. Games have many right answers, so theirs are checked, here and not by the library: it evaluates
what it is given.
"""

import ast
import hashlib
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib import metadata
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from manyminds.canonical import answer_of, task
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.packs import logic
from manyminds.evals.questions import Graded
from manyminds.experts.recorded import Question
from manyminds.types import Kind, Message, Query, Task

__all__ = ["LICENCE", "categories", "makes", "questions"]

LICENCE: Final = "Apache-2.0 (reasoning-gym)"

_VERSION: Final = "0.1.25"
"""Others may make other tasks of the same seed."""
_SIZE: Final = 1 << 20  # tasks of a level at most
_EXPRESSION: Final = re.compile(r"[0-9(][-+*/() 0-9]*[0-9)]")
_EXPRESSION_CHARS: Final = 200
_SIGNS: Final = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"})
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
)

_Levels: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Maker:
    """A generator at three levels.

    Attributes:
        kind: as which its answers are compared; a task that live traffic would take for another is left out.
        wording: patterns and what is said instead, one after the other.
        without: tasks that are left out, as a pattern of the question, a line's end and the answer.
    """

    kind: Kind
    levels: _Levels
    wording: tuple[tuple[str, str], ...] = ()
    without: str = ""


def _by(**levels: Sequence[Any]) -> _Levels:
    """Three configurations, from the three values of each field."""
    first, second, third = ({name: values[i] for name, values in levels.items()} for i in range(3))
    return first, second, third


_END: Final = r"\Z"
_NO_HINT: Final = (
    r"\s*(?:Give only the \w+|Give the result|Provide only the color) as your final answer\.",
    "",
)
_NO_PREAMBLE: Final = (
    r"(?s)\A(?:Your task is to .*?\n\nNow, |Solve the following problem\..*?\n\n(?=Reverse))",
    "",
)
_WEEKDAYS: Final = ("weekday_offset", "weekday_of_date_from_first_date")
_MAKERS: Final[Mapping[str, _Maker]] = MappingProxyType(
    {
        "basic_arithmetic": _Maker(
            "number",
            _by(
                min_terms=(2, 3, 4),
                max_terms=(2, 3, 5),
                max_digits=(2, 2, 2),
                allow_negation=(False, False, True),
            ),
        ),
        "chain_sum": _Maker(
            "number",
            _by(min_terms=(2, 3, 5), max_terms=(2, 4, 6), min_digits=(1, 2, 2), max_digits=(2, 2, 3)),
            ((r"\AState the final answer to the following arithmetic problem: (.*?) =", r"What is \1?"),),
        ),
        "decimal_chain_sum": _Maker(
            "number",
            _by(min_terms=(2, 2, 3), max_terms=(2, 3, 4), max_digits=(1, 2, 2), max_decimal_places=(1, 1, 2)),
            ((r"\AState the final answer to the following arithmetic problem: (.*?) =", r"Calculate \1."),),
        ),
        "products": _Maker(
            "number",
            _by(min_digits=(1, 1, 2), max_digits=(2, 2, 2), max_terms=(2, 3, 2)),
            (_NO_HINT,),
            r"\b0\b",
        ),
        "gcd": _Maker("number", _by(min_value=(2, 10, 40), max_value=(40, 120, 400)), (_NO_HINT,)),
        "simple_equations": _Maker(
            "number", _by(min_terms=(2, 2, 3), max_terms=(2, 3, 4), max_value=(12, 30, 60))
        ),
        "number_sequence": _Maker(
            "number",
            _by(max_complexity=(1, 2, 3), min_value=(1, -20, -50), max_value=(30, 30, 50)),
            ((r"\A", "What is the next number in this sequence? "), (r", \?\Z", ", …")),
            r", (-?\d+), \1, \1, \?\n",
        ),
        "gsm_symbolic": _Maker(
            "number", _by(difficulty=(1.0, 1.0, 1.0)), (_NO_HINT, (r"\s*Do not include units\.", ""))
        ),
        "leg_counting": _Maker(
            "number",
            _by(min_animals=(1, 2, 3), max_animals=(1, 2, 4), max_instances=(20, 8, 12)),
            (_NO_PREAMBLE, (r"\Ahow", "How")),
            "starfish|snake|slug|jellyfish|worm|leech|woodlouse",
        ),
        "letter_counting": _Maker(
            "number",
            _by(min_words=(1, 3, 6), max_words=(2, 5, 12)),
            (
                (" appear in the text:", " appear, small or capital, in this text:"),
                (_END, " Write it as 0, 1, 2, and so on."),
            ),
        ),
        "aiw": _Maker(
            "number",
            _by(
                task_type_weights=([1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]),
                max_entities=(9, 12, 30),
            ),
            (),
            r"(?s)\A(\w+) has .*? does (?!\1's)\w+'s brother",
        ),
        "calendar_arithmetic": _Maker(
            "span",
            _by(tasks=[_WEEKDAYS] * 3, offset_upper_bound=(10, 30, 100)),
            (
                (r"\s*(?:Answer|Provide|State|Give|Reply|Write|Respond|Name the day)[^?]*\Z", ""),
                (_END, " Answer with just the weekday."),
            ),
        ),
        "needle_haystack": _Maker(
            "span",
            _by(min_num_statements=(5, 12, 25), max_num_statements=(10, 20, 40)),
            ((r"Reply only with a name\.\Z", "Answer with just the name."),),
        ),
        "spell_backward": _Maker(
            "span",
            _by(min_word_len=(3, 5, 7), max_word_len=(4, 6, 9)),
            ((_END, ". Answer with just the word."),),
        ),
        "word_sorting": _Maker(
            "span",
            _by(min_words=(3, 4, 6), max_words=(3, 5, 7)),
            (
                _NO_PREAMBLE,
                (r"\Asort these words in ascending order.*?:", "Sort these words alphabetically:"),
                (
                    r"\Asort these words in descending order.*?:",
                    "Sort these words in reverse alphabetical order:",
                ),
                (_END, ". Answer with just the words, separated by commas."),
            ),
        ),
        "number_sorting": _Maker(
            "span",
            _by(
                min_numbers=(3, 4, 6),
                max_numbers=(3, 5, 8),
                max_decimals=(0, 0, 1),
                min_value=(0, -50, -100),
                max_value=(99, 99, 100),
            ),
            ((r"(?s)\nPlease follow .*", ". Answer with just the numbers, separated by commas."),),
        ),
        "word_sequence_reversal": _Maker(
            "span",
            _by(min_words=(3, 4, 6), max_words=(3, 5, 8)),
            (_NO_PREAMBLE, (_END, ". Answer with just the words, separated by commas.")),
        ),
        "family_relationships": _Maker(
            "span",
            _by(min_family_size=(3, 5, 7), max_family_size=(4, 6, 8)),
            ((r"\s*(?:Respond|Provide|Answer) [^.?]*\.\Z", " Answer with a single word."),),
            r"\n(?:niece|nephew|.*-in-law)\Z",  # which it says of the other person
        ),
        "syllogism": _Maker(
            "span",
            _by(
                allow_some=(False, True, True),
                allow_some_not=(False, False, True),
                invalid_ratio=(0.5, 0.5, 0.5),
            ),
            ((r"\n\(Answer Yes or No\)\Z", "\nAnswer yes or no."),),
            # Its golds are at times wrong: see `logic`.
        ),
        "color_cube_rotation": _Maker(
            "span",
            _by(min_rotations=(1, 2, 3), max_rotations=(1, 2, 3)),
            (_NO_HINT, (_END, " Answer with just the color.")),
        ),
        "zebra_puzzles": _Maker(
            "span",
            _by(num_people=(2, 3, 4), num_characteristics=(2, 2, 3)),
            (
                ("What is Name of", "What is the name of"),
                (
                    r"\?+ Provide only the name of the person as your final answer\.\Z",
                    "? Answer with just the name.",
                ),
            ),
        ),
        "countdown": _Maker(
            "text",
            _by(
                min_numbers=(2, 3, 4),
                max_numbers=(2, 3, 4),
                min_value=(2, 1, 1),
                max_value=(25, 12, 20),
                min_target=(1, 1, 10),
                max_target=(200, 100, 100),
            ),
        ),
    }
)


def categories() -> tuple[str, ...]:
    return tuple(_MAKERS)


def questions(category: str, seed: int, count: int) -> Iterator[Graded]:
    """`count` tasks that differ, of three levels in turn: a greater count adds to those of a smaller one.

    Raises: DataError, where reasoning-gym is missing or of another version, or has no further task.
    """
    levels = [_tasks(category, seed, level) for level in range(3)]
    seen: set[str] = set()
    for i in range(count):
        graded = next((made for made in levels[i % 3] if made.text not in seen), None)
        if graded is None:
            raise DataError(
                f"{category} has only {i} different tasks of seed {seed}: ask for fewer, or another seed."
            )
        seen.add(graded.text)
        key = f"procedural-{category}-{seed}-{i % 3}-{i // 3}"
        question = replace(graded.question, question_id=key, split=split_of(key))  # type: ignore[arg-type]
        yield replace(graded, question=question)


def makes(numbers: Sequence[int], target: int, text: str) -> bool:
    """Whether the last expression in a text gives `target` with each of the numbers used once."""
    runs = [run for run in _EXPRESSION.findall(text.translate(_SIGNS)) if re.search(r"[-+*/]", run)]
    if not runs or len(runs[-1]) > _EXPRESSION_CHARS:
        return False
    try:
        tree = ast.parse(runs[-1].strip(" *"), mode="eval").body
        used: list[int] = []
        value = _value(tree, used)
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return value == target and Counter(used) == Counter(numbers)


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """Exact; `used` gets every number. Raises: ValueError, where it is more than + - * / of whole numbers."""
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            used.append(number)
            return Fraction(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            one, other = _value(left, used), _value(right, used)
            return Fraction(_OPERATORS[type(op)](one, other))
        case _:
            raise ValueError("neither a whole number nor + - * /")


def _tasks(category: str, seed: int, level: int) -> Iterator[Graded]:
    """All that a level has to offer, yet without id and split. Raises: DataError."""
    maker = _MAKERS[category]
    config = dict(maker.levels[level])
    create, lowercase = _library()
    if category == "word_sorting":
        config["transformation"] = lowercase
    start = int.from_bytes(hashlib.sha256(f"{category} {seed} {level}".encode()).digest()[:4])
    entries = create(category, size=_SIZE, seed=start, **config)
    for i in range(_SIZE):
        entry = entries[i]
        asked, gold = str(entry["question"]).strip(), str(entry["answer"])
        if category == "number_sorting":
            asked, gold = (re.sub(r"\.0\b", "", said) for said in (asked, gold))
        if maker.without and re.search(maker.without, f"{asked}\n{gold}"):
            continue
        if category == "syllogism" and logic.follows(asked) is not (gold == "Yes"):
            continue
        for pattern, said in maker.wording:
            asked = re.sub(pattern, said, asked)
        graded = (
            _game(category, entry["metadata"], gold)
            if maker.kind == "text"
            else _plain(category, asked, gold)
        )
        if graded is not None and task(Query((Message("user", graded.text),))).kind == maker.kind:
            yield graded


def _plain(category: str, asked: str, gold: str) -> Graded | None:
    """None where the gold could not be told from other answers."""
    live = task(Query((Message("user", asked),)))
    canonical = answer_of(live, gold)
    if canonical is None:
        return None
    return Graded(Question("", category, asked, (), canonical, "test"), asked, live)


def _game(category: str, facts: Mapping[str, Any], solution: str) -> Graded | None:
    """None where the library's own solution is wrong."""
    numbers, target = tuple(facts["numbers"]), facts["target"]
    check = partial(makes, numbers, target)
    if not check(solution):
        return None
    listed = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    asked = (
        f"Use each of the numbers {listed} exactly once, with + - * / and parentheses, to make {target}."
        " Write the expression and nothing else."
    )
    return Graded(Question("", category, asked, (), None, "test"), asked, Task(), check)


def _library() -> tuple[Callable[..., Sequence[Mapping[str, Any]]], object]:
    """What makes a data set, and the word for lower case. Raises: DataError."""
    try:
        import reasoning_gym
        from reasoning_gym.algorithmic.word_sorting import TextTransformation
    except ImportError as error:
        raise DataError(
            f"Procedural tasks need reasoning-gym: pip install 'reasoning-gym=={_VERSION}'."
        ) from error
    found = metadata.version("reasoning-gym")
    if found != _VERSION:
        raise DataError(
            f"Procedural tasks need reasoning-gym {_VERSION}, and {found} is installed: others make other"
            f" tasks of the same seed. pip install 'reasoning-gym=={_VERSION}'."
        )
    return reasoning_gym.create_dataset, TextTransformation.LOWERCASE
