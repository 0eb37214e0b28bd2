"""Files that are written whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

__all__ = ["replace_file"]


def replace_file(file: Path, content: bytes) -> None:
    """Puts a file with this content, for its owner's eyes only, in the place of what was there; durably.

    Raises: OSError, and the old one is as it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        try:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
            os.replace(new.name, file)
        except BaseException:
            os.unlink(new.name)
            raise
