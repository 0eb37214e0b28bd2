"""What other nodes are called here. Once a name is a node's it is no other's, also after a restart.

Grades, what was measured and what was paid go by it.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import msgspec

from manyminds.errors import ConfigError

__all__ = ["NAMES", "Names"]

NAMES: Final = "nodes.json"
"""Where in the home it is kept which node had which name."""

_MOST: Final = 10_000
_CHARS: Final = 32
_names = msgspec.json.Decoder(dict[str, str])


class Names:
    """Gives names, and keeps in a file whose each is.

    Args:
        file: made where there is none.

    Raises: ConfigError where the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._nodes = _names.decode(file.read_bytes()) if file.exists() else {}
        except (msgspec.DecodeError, OSError) as error:
            raise ConfigError(f"{file} cannot be read ({error}): move it away for new names.") from None

    @property
    def nodes(self) -> Mapping[str, str]:
        """Ids by the names that were given so far."""
        return self._nodes

    def of(self, node: str, wish: str, taken: Collection[str]) -> str:
        """What a node is called that calls itself so; `taken` are names of something else.

        Its wish, as far as it is a name, or that with the beginning of its id behind it; its whole id where
        these are others'. Raises: OSError.
        """
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", wish).strip("-")[:_CHARS] or "node"
        for name in (plain, f"{plain}-{node[:6]}"):
            if name not in taken and self._nodes.get(name, node) == node:
                if name not in self._nodes:
                    if len(self._nodes) >= _MOST:
                        break
                    self._nodes[name] = node
                    self._write()
                return name
        return node

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self._file.parent, prefix=f".{self._file.name}.", delete=False) as new:
            new.write(msgspec.json.encode(self._nodes))
        os.replace(new.name, self._file)
