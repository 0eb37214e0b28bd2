"""What databases say when they fail, in words that say what to do.

Never quotes a statement or its values: of what a server says, only its code is looked at.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from manyminds.errors import LedgerError

__all__ = ["ELSEWHERE", "explain", "explaining", "is_passing"]

ELSEWHERE: Final = "or point ledger.url elsewhere"

_SQLITE: Final[Mapping[int, str]] = MappingProxyType(
    {  # by SQLite's primary result code
        5: "is locked by another process ({cause}): try again, end that process",
        8: "cannot be written ({cause}): mend its permissions",
        11: "is damaged ({cause}): move it away and a new one is made",
        13: "has no room left ({cause}): free some",
        14: "cannot be opened ({cause}): mend its path or permissions",
        19: "cannot hold a value ({cause}): mend that",
        26: "is no SQLite file ({cause}): move it away and a new one is made",
    }
)
_POSTGRESQL: Final[Mapping[str, str]] = MappingProxyType(
    {  # by SQLSTATE, else by its class
        "22": "cannot hold a value",
        "23": "cannot hold a value",
        "25006": "can only be read: name the primary server",
        "40": "is locked by another process: try again",
        "42501": "lacks a permission: grant its user what is missing",
        "42P01": "lacks a table: bring it back",
        "53": "has no room or no connection left: free some",
        "55P03": "is locked by another process: try again, end that process",
        "57P": "is stopping or starting: try again",
    }
)


def explain(error: Exception, where: str) -> LedgerError | None:
    """The error in words; None where it is no database's, nor of a value."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    if isinstance(error, DBAPIError):
        return LedgerError(f"The ledger {where} {_advice(error.orig)}, {ELSEWHERE}.")
    if isinstance(error, SQLAlchemyError):
        return LedgerError(f"The ledger {where} failed ({type(error).__name__}): try again, {ELSEWHERE}.")
    if isinstance(error, OverflowError | UnicodeError):  # a count above 63 bits, text without UTF-8
        return LedgerError(f"The ledger {where} cannot hold a value: {type(error).__name__}.")
    if isinstance(error, OSError):
        return LedgerError(f"The ledger {where} cannot be opened: {error.strerror}. Mend that, {ELSEWHERE}.")
    return None


@contextmanager
def explaining(where: str) -> Iterator[None]:
    """Turns what databases and the system raise into a LedgerError."""
    try:
        yield
    except Exception as error:
        explained = explain(error, where)
        if explained is None:
            raise
        raise explained from None


def is_passing(error: Exception) -> bool:
    """Whether the database is at fault, so that the same rows may be taken later."""
    from sqlalchemy import exc

    if isinstance(error, exc.ProgrammingError):  # without a code, the driver could not send a value
        return getattr(error.orig, "sqlstate", None) is not None
    if isinstance(error, exc.DBAPIError):
        return not isinstance(error, exc.IntegrityError | exc.DataError)
    return isinstance(error, OSError | exc.TimeoutError)


def _advice(cause: BaseException | None) -> str:
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF, "failed ({cause}): mend that").format(cause=cause)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        known = next((said for begin, said in _POSTGRESQL.items() if state.startswith(begin)), None)
        return f"{known or 'failed'} (SQLSTATE {state})" + ("" if known else ": mend that")
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "OperationalError" in kinds:  # of the way there: the client library's own words
        said = str(cause).strip().splitlines() or ["no reason given"]
        return f"cannot be reached ({said[0]}): start it, mend its address or password"
    return f"cannot hold a value ({type(cause).__name__}): mend that"
