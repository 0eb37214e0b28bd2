"""The journal of a recorded set: every answer that ever came, a line each, only appended to.

Answers are kept as they were said, so that a corrected gold costs no call. Knows no expert and no tables.
"""

import math
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from manyminds.catalog.lock import locked
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import FILES
from manyminds.evals.questions import Graded
from manyminds.types import Answer, Card

__all__ = ["JOURNAL", "Entry", "Journal", "entry_of", "opened"]

JOURNAL: Final = "journal.jsonl"
"""In the folder: every answer that ever came."""

_SYNCED: Final = 32  # answers that a failure of power may lose; an end of the process loses none
_MOST: Final = 1e12  # what an expert says of its usage is untrusted


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator["Journal", None]:
    """The journal of a folder, which is made if it is not there, for this run alone.

    Raises: DataError: another run is at work there, or it holds a set from elsewhere; OSError.
    """
    if not (folder / JOURNAL).exists() and any((folder / name).exists() for name in FILES):
        raise DataError(f"{folder} holds a set that was not recorded here: choose another folder.")

    def busy() -> None:
        raise DataError(
            f"Another run is recording into {folder}: wait for its end, or choose another folder."
        )

    async with locked(folder / ".lock", busy):
        with Journal(folder / JOURNAL) as journal:
            yield journal


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One answer, as it was said."""

    expert: str
    call: str
    question_id: str  # for people: the call says what was asked
    text: str
    cut: bool
    seconds: float
    prompt_tokens: float
    completion_tokens: float
    cpu_s: float
    cost_usd: float
    confidence: float | None

    def price_usd(self, card: Card) -> float:
        """What it cost; where that was not said, by the card's prices."""
        tokens = (
            self.prompt_tokens * card.price_in_usd_per_m + self.completion_tokens * card.price_out_usd_per_m
        )
        return self.cost_usd or tokens / 1e6 + self.cpu_s * card.price_cpu_usd_per_hour / 3600


def entry_of(called: tuple[str, str], graded: Graded, answer: Answer) -> Entry:
    """What is kept of an answer to a call, which is given as `Calls.call` makes it."""
    name, call = called
    last, usage = answer.chunks[-1], answer.usage
    sure = answer.confidence
    return Entry(
        expert=name,
        call=call,
        question_id=graded.question.question_id,
        text=answer.text.encode("utf-8", "replace").decode(),
        cut=last.finish_reason in ("length", "content_filter"),
        seconds=answer.seconds,
        prompt_tokens=_amount(usage.prompt_tokens),
        completion_tokens=_amount(usage.completion_tokens),
        cpu_s=_amount(usage.cpu_s),
        cost_usd=_amount(usage.cost_usd),
        confidence=float(sure) if sure is not None and math.isfinite(sure) else None,
    )


def _amount(said: float) -> float:
    return float(said) if 0 <= said <= _MOST else 0.0


class Journal:
    """Lines of JSON that outlive whoever writes them. One writer: the folder is locked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsynced = 0
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Entry).decode

    def __enter__(self) -> "Journal":
        self._file = self._path.open("ab+")
        self._mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self.sync()

    def add(self, entry: Entry) -> None:
        """Raises: OSError."""
        self._file.write(self._encode(entry) + b"\n")
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= _SYNCED:
            self.sync()

    def entries(self) -> Iterator[Entry]:
        """From the first on. Raises: DataError, which names the line."""
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield self._decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise DataError(
                        f"{self._path}, line {number} is damaged ({error!s:.200}): delete that line, and"
                        " its question is asked again."
                    ) from None

    def sync(self) -> None:
        """What was added outlives a failure of power. Raises: OSError."""
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _mend(self) -> None:
        """Drops a last line that was cut off while it was written."""
        size = whole = self._file.seek(0, os.SEEK_END)
        while whole:
            step = min(65_536, whole)
            self._file.seek(whole - step)
            at = self._file.read(step).rfind(b"\n")
            if at >= 0:
                whole += at + 1 - step
                break
            whole -= step
        if whole < size:
            self._file.truncate(whole)
