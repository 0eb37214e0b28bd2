"""How often a key may ask: token buckets for its requests and its tokens per minute. Knows no request."""

import struct
from math import ceil
from typing import Final, NamedTuple

from manyminds.board import Board, Cell
from manyminds.errors import InvalidRequestError, RateLimitError
from manyminds.types import Key

__all__ = ["Allowance", "Bucket", "Rates", "SharedAllowance"]

_MINUTE_NS: Final = 60 * 10**9
_NO_LIMIT: Final = (None, 0, 0.0)
_STATE: Final = struct.Struct("<8q")  # of both buckets: limit, since when, whole pieces, rest
_UNLIMITED: Final = (-1, 0, 0, 0)


class Rates(NamedTuple):
    """What is left of a key's allowance. None where it has no such limit; `reset` is until all is back."""

    limit_requests: int | None = None
    remaining_requests: int = 0
    reset_requests_s: float = 0.0
    limit_tokens: int | None = None
    remaining_tokens: int = 0
    reset_tokens_s: float = 0.0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As OpenAI sends them; none of a limit that the key does not have."""
        found = []
        if self.limit_requests is not None:
            found += [
                (b"x-ratelimit-limit-requests", b"%d" % self.limit_requests),
                (b"x-ratelimit-remaining-requests", b"%d" % self.remaining_requests),
                (b"x-ratelimit-reset-requests", b"%dms" % ceil(1000 * self.reset_requests_s)),
            ]
        if self.limit_tokens is not None:
            found += [
                (b"x-ratelimit-limit-tokens", b"%d" % self.limit_tokens),
                (b"x-ratelimit-remaining-tokens", b"%d" % self.remaining_tokens),
                (b"x-ratelimit-reset-tokens", b"%dms" % ceil(1000 * self.reset_tokens_s)),
            ]
        return found


class Bucket:
    """Holds a minute's worth at most and refills continuously.

    Whole numbers throughout, so that nothing drifts: one piece counts as many units as a minute has
    nanoseconds, and `limit` units flow in each nanosecond. `fill` before asking anything else.
    """

    __slots__ = ("_at_ns", "_level", "_most", "limit")

    def __init__(self, limit: int, now_ns: int) -> None:
        """Full. `limit` is per minute."""
        self.limit = limit
        self._at_ns = now_ns
        self._most = self._level = limit * _MINUTE_NS

    def fill(self, now_ns: int) -> None:
        """Lets in what has flowed since the last time. A clock that runs backwards adds nothing."""
        elapsed_ns = now_ns - self._at_ns
        if elapsed_ns > 0:
            self._level = min(self._most, self._level + elapsed_ns * self.limit)
            self._at_ns = now_ns

    def resize(self, limit: int) -> None:
        """Another limit from now on. What is in it stays, as far as it fits."""
        self.limit = limit
        self._most = limit * _MINUTE_NS
        self._level = min(self._level, self._most)

    def wait_ns(self, pieces: int) -> int:
        """How long until there are so many, which must not be more than `limit`."""
        short = pieces * _MINUTE_NS - self._level
        return 0 if short <= 0 else -(-short // self.limit)

    def take(self, pieces: int) -> None:
        """Whether they are there or not: the level may go below nothing. Fewer than none gives back."""
        self._level = min(self._most, self._level - pieces * _MINUTE_NS)

    def state(self) -> tuple[int, int, int, int]:
        """All of it, in numbers of 63 bits: its limit, since when it is filled, whole pieces and the rest."""
        return self.limit, self._at_ns, *divmod(self._level, _MINUTE_NS)

    def become(self, limit: int, at_ns: int, pieces: int, rest: int) -> None:
        """What `state` has said of another one."""
        self.limit = limit
        self._at_ns = at_ns
        self._most = limit * _MINUTE_NS
        self._level = pieces * _MINUTE_NS + rest

    def figures(self) -> tuple[int, int, float]:
        """Its limit, how many pieces are left, and in how many seconds it will be full again."""
        left = self._level // _MINUTE_NS if self._level > 0 else 0
        return self.limit, left, (self._most - self._level) / (self.limit or 1) / 1e9


class Allowance:
    """The buckets of one key."""

    __slots__ = ("_name", "_requests", "_tokens")

    def __init__(self, key: Key, now_ns: int) -> None:
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.replace(key, now_ns)

    def replace(self, key: Key, now_ns: int) -> None:
        """Takes over the key's limits. Levels stay."""
        self._name = key.name
        self._requests = _resized(self._requests, key.requests_per_min, now_ns)
        self._tokens = _resized(self._tokens, key.tokens_per_min, now_ns)

    def take(self, tokens: int, now_ns: int) -> Rates:
        """Takes one request and so many tokens, or nothing.

        Raises:
            RateLimitError: for now; says when there will be enough.
            InvalidRequestError: for ever: a minute's worth does not suffice.
        """
        self._draw(tokens, now_ns)
        return self._figures()

    def _draw(self, tokens: int, now_ns: int) -> None:
        requests, bucket = self._requests, self._tokens
        wait_ns, limit = 0, ""
        if requests is not None:
            requests.fill(now_ns)
            if requests.limit < 1:
                raise RateLimitError(f"The key {self._name!r} may make no requests: ask the node's owner.")
            if wait_ns := requests.wait_ns(1):
                limit = f"{requests.limit} requests"
        if bucket is not None:
            bucket.fill(now_ns)
            if tokens > bucket.limit or bucket.limit < 1:
                raise self._too_large(tokens, bucket.limit)
            if (longer_ns := bucket.wait_ns(tokens)) > wait_ns:
                wait_ns, limit = longer_ns, f"{bucket.limit} tokens"
        if wait_ns:
            raise self._too_soon(wait_ns, limit)
        if requests is not None:
            requests.take(1)
        if bucket is not None:
            bucket.take(tokens)

    def settle(self, taken: int, used: int, now_ns: int) -> None:
        """Makes good the difference between the tokens that were taken and those that were used."""
        if self._tokens is not None:
            self._tokens.fill(now_ns)
            self._tokens.take(used - taken)

    def rates(self, now_ns: int) -> Rates:
        """The figures now. Takes nothing."""
        self._fill(now_ns)
        return self._figures()

    def _fill(self, now_ns: int) -> None:
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.fill(now_ns)

    def _figures(self) -> Rates:
        requests, tokens = self._requests, self._tokens
        return Rates(
            *(_NO_LIMIT if requests is None else requests.figures()),
            *(_NO_LIMIT if tokens is None else tokens.figures()),
        )

    def _too_soon(self, wait_ns: int, limit: str) -> RateLimitError:
        return RateLimitError(
            f"The key {self._name!r} has {limit} a minute: try again in {wait_ns / 1e9:.3f} s.",
            retry_after_s=wait_ns / 1e9,
        )

    def _too_large(self, tokens: int, limit: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"This request may take {tokens} tokens, with its answer, and the key {self._name!r} has {limit} "
            f"for a whole minute: waiting will not help. Shorten the prompt or lower max_tokens.",
            param="max_tokens",
        )


class SharedAllowance(Allowance):
    """The buckets of one key for several processes, which count as one.

    Each call is exact: it takes the cell's lock for some microseconds. The limits are those that the process
    knows which learnt last of a change. Without room on the board each process counts alone.
    """

    __slots__ = ("_board", "_cell", "_key_id", "_limits", "_turn")

    def __init__(self, key: Key, now_ns: int, board: Board) -> None:
        self._board = board
        self._cell: Cell | None = None
        self._key_id = key.id
        self._turn = -1  # of the cell when it was last as here
        self._limits: tuple[int | None, int | None] = (key.requests_per_min, key.tokens_per_min)
        super().__init__(key, now_ns)

    def replace(self, key: Key, now_ns: int) -> None:
        """See `Allowance`."""
        before, self._limits = self._limits, (key.requests_per_min, key.tokens_per_min)
        if self._cell is None or before == self._limits:
            self._name = key.name
            if self._cell is None:
                super().replace(key, now_ns)
            return
        with self._cell:
            self._load()
            super().replace(key, now_ns)
            self._store()

    def take(self, tokens: int, now_ns: int) -> Rates:
        """See `Allowance`."""
        cell = self._cell or self._claimed(now_ns)
        if cell is None:
            return super().take(tokens, now_ns)
        with cell:  # and nothing more than must be: others wait
            self._load()
            self._draw(tokens, now_ns)
            self._store()
        return self._figures()

    def settle(self, taken: int, used: int, now_ns: int) -> None:
        """See `Allowance`."""
        if self._limits[1] is None:
            return
        cell = self._cell or self._claimed(now_ns)
        if cell is None:
            super().settle(taken, used, now_ns)
            return
        with cell:
            self._load()
            super().settle(taken, used, now_ns)
            self._store()

    def rates(self, now_ns: int) -> Rates:
        """See `Allowance`."""
        cell = self._cell or self._claimed(now_ns)
        if cell is None:
            return super().rates(now_ns)
        with cell:
            self._load()
        return super().rates(now_ns)

    def _claimed(self, now_ns: int) -> Cell | None:
        """The key's cell from its first use on: most keys never come to every process."""
        self._cell = cell = self._board.cell(f"rates {self._key_id}")
        if cell is not None:
            requests, tokens = self._limits
            with cell:
                self._load()
                self._requests = _resized(self._requests, requests, now_ns)
                self._tokens = _resized(self._tokens, tokens, now_ns)
                self._store()
        return cell

    def _load(self) -> None:
        """Has the buckets as they are on the board, if there is anything."""
        cell = self._cell
        assert cell is not None
        turn = cell.turn
        if turn and turn != self._turn:
            state = cell.load(_STATE)
            self._requests = _become(self._requests, state[:4])
            self._tokens = _become(self._tokens, state[4:])
            self._turn = turn

    def _store(self) -> None:
        cell, requests, tokens = self._cell, self._requests, self._tokens
        assert cell is not None
        self._turn = cell.store(
            _STATE,
            *(_UNLIMITED if requests is None else requests.state()),
            *(_UNLIMITED if tokens is None else tokens.state()),
        )


def _become(bucket: Bucket | None, state: tuple[int, int, int, int]) -> Bucket | None:
    if state[0] < 0:
        return None
    bucket = bucket or Bucket(0, 0)
    bucket.become(*state)
    return bucket


def _resized(bucket: Bucket | None, limit: int | None, now_ns: int) -> Bucket | None:
    if limit is None:
        return None
    if bucket is None:
        return Bucket(limit, now_ns)
    bucket.fill(now_ns)
    bucket.resize(limit)
    return bucket
