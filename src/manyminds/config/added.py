"""The experts and peers that commands added: a file that the program owns, changed whole or not at all.

Knows no expert: what an entry may hold is what `entries` of the package says.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from manyminds.config import ADDED, entries, peers, tables
from manyminds.config.files import replace_file
from manyminds.errors import ConfigError

__all__ = ["edited", "written"]

_OPENING = "# Written by `manyminds experts` and `federate`. Settings of your own belong in manyminds.toml.\n"


@contextmanager
def edited(home: Path, kind: Literal["expert", "peer"] = "expert") -> Iterator[list[dict[str, Any]]]:
    """The tables of all of a kind that were added. What the block leaves of them is written when it ends.

    Waits until no other process is within such a block; if this one raises, nothing is written.

    Raises: ConfigError: the file cannot be read or written, or what is to be written is wrong.
    """
    file = home / ADDED
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / f".{ADDED}.lock").open("a") as lock:  # closing it gives the lock back
            fcntl.flock(lock, fcntl.LOCK_EX)
            every = {"expert": tables(file), "peer": tables(file, "peer")}
            _check(every, file)
            said = every[kind]
            before = list(said)
            yield said
            if said != before:
                _check(every, file)
                texts = [written(table, of) for of, those in every.items() for table in those]
                _replace(file, _OPENING + "".join(texts))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error


def written(table: Mapping[str, Any], kind: str = "expert") -> str:
    """One `[[expert]]` or `[[peer]]` in TOML, of texts, numbers, truth values and lists of these."""
    return f"\n[[{kind}]]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _check(every: Mapping[str, Any], file: Path) -> None:
    """Raises: ConfigError."""
    peers(every["peer"], file, {}, entries(every["expert"], file, {}))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one that TOML forbids
    return repr(value)


def _replace(file: Path, text: str) -> None:
    """Raises: OSError; ConfigError for half a character, which no file can hold."""
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise ConfigError("What is to be added holds bytes that are no UTF-8: write it in UTF-8.") from None
    replace_file(file, content)
