"""The process that reads documents: bytes in, paragraphs out. Knows no file and no library.

A request is a line of JSON, {"name": ..., "bytes": ..., "cpu_s": ...}, and so many bytes; an answer is its
length in four bytes, big-endian, and JSON: {"paragraphs": [[heading, text], ...], "why": "..."}.
"""

import json
import resource
import sys
from contextlib import suppress
from typing import Final

import msgspec

from manyminds.documents import readers
from manyminds.documents.split import Paragraph, split
from manyminds.errors import DocumentsError

__all__ = ["Reply", "main"]

_MEMORY_BYTES: Final = 1_500_000_000


class Reply(msgspec.Struct, omit_defaults=True):
    """What became of a file: its paragraphs, or why there are none; `again`, whether that may pass."""

    paragraphs: list[Paragraph] = []
    why: str = ""
    again: bool = False


def main() -> None:
    """Serves its standard input until that ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := asked.readline():
        request = json.loads(line)
        content = asked.read(request["bytes"])
        _limit_cpu(request["cpu_s"])
        reply = msgspec.json.encode(_reply(request["name"], content))
        answers.write(len(reply).to_bytes(4, "big") + reply)
        answers.flush()


def _limit_cpu(seconds: int) -> None:
    """From now on: the kernel ends a process that nobody is there to end."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _reply(name: str, content: bytes) -> Reply:
    try:
        return Reply(split(readers.read(name, content)))
    except DocumentsError as error:
        return Reply(why=error.message)
    except ModuleNotFoundError as error:
        return Reply(why=f"to read it needs {error.name}: pip install 'manyminds[documents]'", again=True)
    except MemoryError:
        raise  # what is left of memory is not enough to go on: the process ends
    except RecursionError:
        return Reply(why="it is nested too deeply")
    except Exception as error:  # whatever a parser raises at bytes that somebody else chose
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return Reply(why=f"it is damaged, or not what its name says ({said})")


if __name__ == "__main__":
    main()
