"""The experts that commands added: a file that the program owns, changed whole or not at all.

Knows no expert: what an entry may hold is what `entries` of the package says.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from manyminds.config import ADDED, entries, tables
from manyminds.errors import ConfigError

__all__ = ["edited", "written"]

_OPENING = (
    "# Written by `manyminds experts add` and `remove`. Settings of your own belong in manyminds.toml.\n"
)


@contextmanager
def edited(home: Path) -> Iterator[list[dict[str, Any]]]:
    """The tables of all that were added. What the block leaves of them is written when it ends.

    Waits until no other process is within such a block; if this one raises, nothing is written.

    Raises: ConfigError: the file cannot be read or written, or what is to be written is wrong.
    """
    file = home / ADDED
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / f".{ADDED}.lock").open("a") as lock:  # closing it gives the lock back
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = tables(file)
            entries(said, file, {})
            before = list(said)
            yield said
            if said != before:
                entries(said, file, {})
                _replace(file, _OPENING + "".join(map(written, said)))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}.") from error


def written(table: Mapping[str, Any]) -> str:
    """One `[[expert]]` in TOML, of texts, numbers and lists of these."""
    return "\n[[expert]]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
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
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        try:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
            os.replace(new.name, file)
        except BaseException:
            os.unlink(new.name)
            raise
