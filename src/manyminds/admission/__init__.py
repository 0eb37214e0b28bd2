"""Who may ask, for what, how often, and for how much.

Knows no HTTP and no ledger: what must outlive the process is leased through callables.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from fnmatch import translate
from types import TracebackType
from typing import Final

from manyminds.admission.budget import Budget, Budgets, GiveBack, Hold, Lease, Recall, period_of
from manyminds.admission.rates import Allowance, Rates, SharedAllowance
from manyminds.admission.sources import SOURCE, Sources
from manyminds.board import Board, Column
from manyminds.errors import ForbiddenError, RateLimitError, UnauthorizedError
from manyminds.types import Key

__all__ = [
    "SOURCE",
    "Admission",
    "Budget",
    "GiveBack",
    "Hold",
    "Lease",
    "Rates",
    "Recall",
    "Sources",
    "digest",
    "new_secret",
    "period_of",
]

_LONGEST: Final = 512  # bytes of a header that may hold a key
_NO_LIMITS: Final = Rates()
_MINTED: Final = "its owner makes keys with `manyminds keys`"


def digest(secret: str) -> bytes:
    """What is kept of a key: its sha256. Keys are long and random, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).digest()


def new_secret() -> str:
    """A new key, with 256 bits of randomness."""
    return "mm-" + secrets.token_urlsafe(32)


class Admission:
    """The door. Whoever it lets in without a key is None, and has no limits but `most_at_once`."""

    def __init__(
        self,
        keys: Mapping[bytes, Key],
        *,
        open: bool,  # noqa: A002 - what a door is
        most_at_once: int,
        lease: Lease,
        give_back: GiveBack,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        board: Board | None = None,
        column: int = 0,
        recall: Recall | None = None,
    ) -> None:
        """Takes values only; `close` gives back what was leased.

        Args:
            keys: by digest; several digests may share one key, as while it is being changed.
            open: whether those without a known key are let in.
            most_at_once: requests of everybody together.
            lease: see `budget.Lease`.
            give_back: see `budget.GiveBack`.
            clock: seconds that never run backwards.
            now: the time, with its zone: when budgets begin anew.
            board: where several processes are one door, what they share.
            column: which of them this is.
            recall: see `budget.Recall`.
        """
        self._open = open
        self._room = _Room(most_at_once, board.column(column) if board else None)
        self._clock = clock
        self._board = board
        self._budgets = Budgets(lease, give_back, clock, now, recall, board, column)
        self._free = Hold(None, 0)
        self.sources = Sources(self._budgets, clock, board)
        """What those who stand behind experts still allow."""
        self._keys: Mapping[bytes, Key] = {}
        self._accounts: dict[str, _Account] = {}  # by key id
        self.replace(keys)

    def replace(self, keys: Mapping[bytes, Key], others: Collection[Key] = ()) -> None:
        """Another set of keys from now on. Of those that remain, levels and purses stay.

        `others` are of whoever proves in another way who it is: no header has them.
        """
        by_id = {key.id: key for key in (*keys.values(), *others)}
        now_ns = self._now_ns()
        accounts = {}
        for key in by_id.values():
            account = self._accounts.get(key.id)
            if account is None:
                account = _Account(key, now_ns, self._board)
            else:
                account.replace(key, now_ns)
            accounts[key.id] = account
        self._keys, self._accounts = dict(keys), accounts
        self._budgets.replace(
            self.sources.budgets
            | {key.id: _budget(key) for key in by_id.values() if key.budget_usd is not None}
        )

    def identify(self, authorization: bytes | None, x_api_key: bytes | None) -> Key | None:
        """Whose request it is, from its headers. Only hashes are compared.

        Raises:
            UnauthorizedError: no known key, and the door is not open.
        """
        if authorization is not None and len(authorization) <= _LONGEST:
            scheme, _, secret = authorization.partition(b" ")
            if scheme.lower() == b"bearer" and (key := self._known(secret)) is not None:
                return key
        if (
            x_api_key is not None
            and len(x_api_key) <= _LONGEST
            and (key := self._known(x_api_key)) is not None
        ):
            return key
        if self._open:
            return None
        if authorization is None and x_api_key is None:
            raise UnauthorizedError(
                "This node asks for a key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY` "
                f"({_MINTED})."
            )
        raise UnauthorizedError(
            "This node does not know the key that was sent: check that it is whole and goes as "
            f"`Authorization: Bearer KEY` or as `x-api-key: KEY` ({_MINTED})."
        )

    @property
    def open(self) -> bool:
        """Whether those without a known key are let in."""
        return self._open

    @property
    def inside(self) -> int:
        """How many requests are being answered."""
        return self._room.inside

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)

    def allows(self, key: Key | None, model: str) -> None:
        """Lets a request for this policy or expert pass.

        Raises:
            ForbiddenError: the key is for others only.
            UnauthorizedError: the key has been withdrawn.
        """
        if key is None:
            return
        account = self._account(key)
        if account.models is not None and account.models.match(model) is None:
            raise ForbiddenError(
                f"The key {account.key.name!r} is not for the model {model[:100]!r}: "
                f"it is for {', '.join(account.key.models)}.",
                param="model",
            )

    def enter(self) -> "_Room":
        """`with admission.enter():` around a request, whose memory is then bounded with the others'.

        Raises: RateLimitError, from `with`, when as many as there may be are inside.
        """
        return self._room

    def take(self, key: Key | None, tokens: int) -> Rates:
        """Counts a request of so many tokens, its longest answer included; or refuses it and counts nothing.

        Raises:
            RateLimitError: says when to come back.
            InvalidRequestError: it is larger than what the key has for a whole minute.
            UnauthorizedError: the key has been withdrawn.
        """
        if key is None or (allowance := self._account(key).allowance) is None:
            return _NO_LIMITS
        return allowance.take(tokens, self._now_ns())

    def settle_tokens(self, key: Key | None, taken: int, used: int) -> None:
        """Makes good the difference between the tokens that were taken and those that were used."""
        account = None if key is None else self._accounts.get(key.id)
        if account is not None and account.allowance is not None:
            account.allowance.settle(taken, used, self._now_ns())

    def rates(self, key: Key | None) -> Rates:
        """What is left of the key's allowance, as for the headers of a refusal. Takes nothing."""
        account = None if key is None else self._accounts.get(key.id)
        if account is None or account.allowance is None:
            return _NO_LIMITS
        return account.allowance.rates(self._now_ns())

    async def reserve(self, key: Key | None, usd: float) -> Hold:
        """Puts aside what a request may cost. Settle it, whatever happens.

        Cancelled, it has reserved nothing.

        Raises:
            BudgetError: the key has less than that left for its period.
            UnavailableError: the ledger cannot be asked. Never for a key without a budget.
            UnauthorizedError: the key has been withdrawn.
        """
        if key is None or (current := self._account(key).key).budget_usd is None:
            return self._free
        return await self._budgets.reserve(_budget(current), usd)

    async def give_back(self, key_id: str) -> None:
        """Gives back what of a budget is leased and not put aside: another process is short of it."""
        await self._budgets.release(key_id)

    async def recover(self) -> None:
        """Gives back what a process that died in this one's place had leased and not put aside."""
        await self._budgets.recover({account.key.id for account in self._accounts.values()})

    async def close(self) -> None:
        """Gives back what is leased and unspent. What is still held is forfeited: settle before."""
        await self._budgets.close()

    def _now_ns(self) -> int:
        return int(self._clock() * 1e9)

    def _known(self, secret: bytes) -> Key | None:
        return self._keys.get(hashlib.sha256(secret.strip()).digest())

    def _account(self, key: Key) -> "_Account":
        account = self._accounts.get(key.id)
        if account is None:
            raise UnauthorizedError(
                f"The key {key.name!r} has been withdrawn: ask the node's owner for another."
            )
        return account


def _budget(key: Key) -> Budget:
    return Budget(key.id, key.name, key.budget_usd or 0.0, key.period)


class _Account:
    """What is known of a key between its requests."""

    __slots__ = ("_board", "allowance", "key", "models")

    def __init__(self, key: Key, now_ns: int, board: Board | None) -> None:
        self._board = board
        self.allowance: Allowance | None = None
        self.replace(key, now_ns)

    def replace(self, key: Key, now_ns: int) -> None:
        self.key = key
        self.models = re.compile("|".join(map(translate, key.models))) if key.models else None
        if key.requests_per_min is None and key.tokens_per_min is None:
            self.allowance = None
        elif self.allowance is None:
            board = self._board
            self.allowance = Allowance(key, now_ns) if board is None else SharedAllowance(key, now_ns, board)
        else:
            self.allowance.replace(key, now_ns)


class _Room:
    """Counts who is inside. One for all: nothing is made when somebody enters.

    Of several processes that share a limit, none lets in more than it allows together. Two that let in the
    last one at the same moment may both refuse.
    """

    __slots__ = ("_column", "_inside", "_most")

    def __init__(self, most: int, column: Column | None) -> None:
        self._most = most
        self._column = column
        self._inside = 0

    @property
    def inside(self) -> int:
        """Of this process."""
        return self._inside

    def __enter__(self) -> None:
        self._inside += 1
        everywhere = self._inside if self._column is None else self._column.put(self._inside)
        if everywhere > self._most:
            self.__exit__(None, None, None)
            raise RateLimitError(
                f"This node is answering {everywhere - 1} requests, which is as many as it takes at once: "
                "try again in a second.",
                retry_after_s=1.0,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
        if self._column is not None:
            self._column.put(self._inside)
