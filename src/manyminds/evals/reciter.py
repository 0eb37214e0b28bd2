"""Recorded models behind a URL: an OpenAI-compatible server that says what each of them once said.

Run as a process, `python -m manyminds.evals.reciter DIR WAIT_MS`, it prints its port. DIR is a recorded set;
the model that is asked is one of its models, the question is known by its text. Each answer takes WAIT_MS;
what was not recorded, is answered with nothing.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from manyminds.errors import RefusedError
from manyminds.evals.speaker import Speech, Spoken, serve
from manyminds.experts.recorded import RecordedSet, open_set
from manyminds.types import Message, Query

__all__ = ["recital"]


def recital(recorded: RecordedSet, wait_s: float) -> Spoken:
    """What a set's models say."""
    experts = {expert.card.name: expert for expert in recorded.experts()}

    async def spoken(asked: dict[str, Any]) -> Speech:
        turns = tuple(Message(turn["role"], turn["content"]) for turn in asked["messages"])
        try:
            words = [chunk.text async for chunk in experts[asked["model"]].stream(Query(turns))]
        except RefusedError:
            words = []
        return Speech(words, wait_s=wait_s)

    return spoken


if __name__ == "__main__":
    _, folder, wait_ms = sys.argv
    asyncio.run(serve(recital(open_set(Path(folder)), int(wait_ms) / 1000)))
