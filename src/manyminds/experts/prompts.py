"""What is added to a question so that small models answer it well: a wish behind it, examples before it.

Knows no expert. Examples are the same for every question of a kind, so a model reads them once.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from manyminds.types import Kind

__all__ = ["FORMS", "By", "examples", "wish"]

By = Literal["word", "steps", "code"]
"""It answers at once, thinks aloud before, or writes a program."""

FORMS: Final[Mapping[Kind, str]] = MappingProxyType(
    {"option": "letter", "number": "number", "span": "answer in a few words"}
)
"""Of what an answer consists, by kind of task; the other kinds are asked as they are."""
_PROGRAM: Final = (
    "Write Python code whose last line computes the answer. Reply with the code only, without comments."
)
_PROGRAMS: Final[Mapping[Kind, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "number": (
            (
                'How many times does the letter "o" appear in the text "food for thought"?'
                " Answer with just the number.",
                'text = "food for thought"\ntext.count("o")',
            ),
            (
                "A box holds 12 eggs. Ann buys 3 boxes and uses 7 eggs. How many are left?",
                "eggs = 12 * 3\neggs - 7",
            ),
            ("What is 12.5 - 30 + 7?", "12.5 - 30 + 7"),
            ("Which number comes next: 3, 6, 12, 24?", "numbers = [3, 6, 12, 24]\nnumbers[-1] * 2"),
        ),
        "span": (
            (
                "Which day of the week was 45 days after March 6, 2023? Answer with just the weekday.",
                '```python\nday = date(2023, 3, 6) + timedelta(days=45)\nday.strftime("%A")\n```',
            ),
            (
                "Sort these words alphabetically: pear, fig, apple."
                " Answer with just the words, separated by commas.",
                '```python\nwords = ["pear", "fig", "apple"]\nsorted(words)\n```',
            ),
            (
                'Spell "lamp" with its letters in reverse. Answer with just the word.',
                '```python\nword = "lamp"\nword[::-1]\n```',
            ),
        ),
    }
)
"""Questions, and programs that hold what is given and compute the rest, by kind of task: without them, small
models write the answer that they guess into the program. Sums need no fence, which costs five tokens; with
words, it keeps models from answering in words."""
_STEPS: Final[Mapping[Kind, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "number": (
            (
                "A box holds 12 eggs. Ann buys 3 boxes and uses 7 eggs. How many are left?",
                "3 boxes hold 3 * 12 = 36 eggs. 36 - 7 = 29 are left.\nAnswer: 29",
            ),
            (
                "Sam earns $20 an hour and works 6 hours a day from Monday to Friday."
                " How much does he earn in two weeks?",
                "Monday to Friday are 5 days. 5 * 6 = 30 hours a week. 30 * 20 = 600 dollars a week."
                " 2 * 600 = 1200 dollars.\nAnswer: 1200",
            ),
            (
                "Which number comes next: 3, 6, 12, 24?",
                "6 - 3 = 3 and 12 - 6 = 6 differ. 6 / 3 = 2, 12 / 6 = 2, 24 / 12 = 2: each is twice the one"
                " before. 24 * 2 = 48.\nAnswer: 48",
            ),
        ),
        "span": (
            (
                "Ann, Tom and Kim sit in a row. Tom is right of Ann. Kim is between them. Who sits in the"
                " middle? Answer with just the name.",
                "Tom is right of Ann: Ann, Tom. Kim is between them: Ann, Kim, Tom. The middle of the three"
                " is Kim.\nAnswer: Kim",
            ),
            (
                "Eve is a daughter of Max. Max and Ida are the children of Rob. What is Ida to Eve?"
                " Answer with a single word.",
                "Eve's father is Max. Ida and Max have the same father, Rob, so Ida is a sister of Max. The"
                " sister of one's father is one's aunt.\nAnswer: aunt",
            ),
            (
                "Today is Wednesday. Which day of the week will it be in 31 days?"
                " Answer with just the weekday.",
                "31 = 4 * 7 + 3. After 28 days it is Wednesday again. 3 days after Wednesday: Thursday,"
                " Friday, Saturday.\nAnswer: Saturday",
            ),
        ),
    }
)
"""Questions, and short thoughts that end in their answers: without them, models write four times as much."""


def wish(by: By, kind: Kind) -> str:
    """How a task of a kind in `FORMS` is to be answered."""
    match by:
        case "word":
            return f"Reply with the {FORMS[kind]} only."
        case "steps":
            return f"Think step by step. Then end with a line that says `Answer:` and the {FORMS[kind]}."
        case "code":
            return _PROGRAM


def examples(by: By, kind: Kind) -> tuple[tuple[str, str], ...]:
    """Questions with the wish behind them, and replies to them."""
    if by == "word":
        return ()
    shown = (_PROGRAMS if by == "code" else _STEPS)[kind]
    return tuple((f"{question}\n\n{wish(by, kind)}", reply) for question, reply in shown)
