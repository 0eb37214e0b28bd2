"""Who is paused: kept with all that is known of it, and asked by nobody until it is resumed.

Written down among withdrawals, as events that only grow. Knows no expert: names are texts.
"""

from typing import Final

from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp
from manyminds.ledger.withdrawals import withdrawals

__all__ = ["paused", "turn"]

_TEXTS: Final = ("document", "artefact_before", "artefact_after", "state")
_COUNTS: Final = ("last_request", "last_outcome", "requests", "outcomes", "answers")


def paused(database: Database) -> frozenset[str]:
    """Names of those who are, now. Whoever its owner withdrew is not: it comes back as new."""
    names: set[str] = set()
    for row in withdrawals(database):
        if row["event"] == "paused":
            names.add(row["expert"])
        elif row["event"] == "resumed" or (row["event"] == "withdrawn" and not row["document"]):
            names.discard(row["expert"])  # what a node signs of itself resumes nobody
    return frozenset(names)


def turn(database: Database, name: str, source: str, *, pause: bool) -> bool:
    """Pauses it, or resumes it; False where it was so already, and nothing is written."""
    import sqlalchemy as sa

    if (name in paused(database)) == pause:
        return False
    table = database.tables.withdrawals
    said = {"event": "paused" if pause else "resumed", "at_utc": stamp(), "expert": name, "source": source}
    said |= dict.fromkeys(_TEXTS, "") | {"names": "[]", "who": "owner"}
    with database.begin() as connection:
        connection.execute(sa.insert(table).values(**said, **dict.fromkeys(_COUNTS, 0)))
    return True
