"""How other nodes kept to the protocol, remembered over restarts; their answers' grades are in the ledger.

Knows no network: reads and writes one file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from manyminds.config.files import replace_file
from manyminds.errors import ConfigError
from manyminds.network.trust import Record, honesty

__all__ = ["DEEDS", "read", "write"]

DEEDS: Final = "deeds.json"
"""Where in the home it is kept."""

_MOST: Final = 10_000
_Count = Annotated[float, Meta(ge=0, le=1e9)]
_kept = msgspec.json.Decoder(dict[str, tuple[_Count, _Count, _Count]])  # kept, cut and offences, by id


def read(file: Path) -> dict[str, Record]:
    """What each node did, by id, without answers. Raises: ConfigError where the file is damaged."""
    try:
        found = _kept.decode(file.read_bytes()) if file.exists() else {}
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}): move it away to forget what nodes did."
        ) from None
    return {
        node: Record(kept=kept, cut=cut, offences=offences) for node, (kept, cut, offences) in found.items()
    }


def write(file: Path, records: Mapping[str, Record]) -> None:
    """Keeps it, whole or not at all; of more than 10,000 nodes, those that are trusted least.

    Raises: OSError.
    """
    least = sorted(records, key=lambda node: (honesty(records[node]), node))[:_MOST]
    counts = {node: (r.kept, r.cut, r.offences) for node in sorted(least) for r in [records[node]]}
    replace_file(file, msgspec.json.encode(counts))
