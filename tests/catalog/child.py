"""A pull in a process of its own: `python -m tests.catalog.child HOME URL CONTENT_PATH LIMIT_BYTES`.

Prints a line for every advance, and the error it ends with. LIMIT_BYTES bounds the files it may write.
"""

import asyncio
import resource
import sys
from pathlib import Path

from manyminds.catalog.pull import pull
from manyminds.errors import CatalogError
from tests.catalog.shelf import hub, model

__all__: list[str] = []


class Printed:
    def start(self, name: str, total_bytes: int) -> None: ...

    def advance(self, name: str, n_bytes: int) -> None:
        print(n_bytes, flush=True)

    def note(self, text: str) -> None: ...

    def done(self, name: str) -> None: ...


def main(home: str, url: str, content: str, limit: str) -> None:
    whole = Path(content).read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        asyncio.run(pull([model(whole, hub(url))], Path(home), progress=Printed()))
    except CatalogError as error:
        print(f"{type(error).__name__}: {error.message}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
