"""Memory for models that are loaded when they are needed and give way when others are. Knows no model."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType

from manyminds.errors import UnavailableError

__all__ = ["Place", "Room"]

log = logging.getLogger(__name__)


class Room:
    """So much memory for all places together, first come, first served.

    Who has memory keeps it until somebody waits for it: then the places that have not been used for
    longest are emptied, none while it is in use. Assigning `limit_mb` holds from now on.
    """

    def __init__(self, limit_mb: float) -> None:
        self._limit_mb = limit_mb
        self._taken: dict[Place, None] = {}  # who has memory; the one last used comes last
        self._emptying: dict[Place, asyncio.Task[None]] = {}  # their memory is not free yet
        self._line: deque[tuple[Place, asyncio.Future[None]]] = deque()

    @property
    def limit_mb(self) -> float:
        return self._limit_mb

    @limit_mb.setter
    def limit_mb(self, limit_mb: float) -> None:
        self._limit_mb = limit_mb
        self._advance()

    @property
    def used_mb(self) -> float:
        """Of those that have memory, and of those that are giving theirs back."""
        return sum(place.needs_mb for place in (*self._taken, *self._emptying))

    def place(self, name: str, needs_mb: float, empty: Callable[[], Awaitable[None]]) -> "Place":
        """A place that takes `needs_mb` when it is used. `empty` gives its memory back."""
        return Place(self, name, needs_mb, empty)

    async def _enter(self, place: "Place") -> None:
        if place in self._taken:
            self._use(place)
            return
        admitted = asyncio.get_running_loop().create_future()
        self._line.append((place, admitted))
        self._advance()
        try:
            await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled() and admitted.exception() is None:  # it was let in all the same
                place.users -= 1
            self._advance()
            raise

    def _leave(self, place: "Place") -> None:
        place.users -= 1
        self._taken[place] = self._taken.pop(place)
        self._advance()

    def _free(self, place: "Place") -> None:
        if not place.users:
            self._taken.pop(place, None)
            self._advance()

    def _use(self, place: "Place") -> None:
        place.users += 1
        self._taken.pop(place, None)
        self._taken[place] = None

    def _advance(self) -> None:
        """Lets in whoever can be, in order, and begins to make room for the next."""
        while self._line:
            place, admitted = self._line[0]
            if place.needs_mb > self._limit_mb and not admitted.done():
                admitted.set_exception(_too_large(place, self._limit_mb))
            if not admitted.done():
                here = place in self._taken
                if not here and (place in self._emptying or self.used_mb + place.needs_mb > self._limit_mb):
                    break
                self._use(place)
                admitted.set_result(None)
            self._line.popleft()
        wanted_mb = self._line[0][0].needs_mb if self._line else 0.0
        left_mb = self._limit_mb - sum(place.needs_mb for place in self._taken)
        for place in [place for place in self._taken if not place.users]:
            if left_mb >= wanted_mb:
                break
            left_mb += place.needs_mb
            self._empty(place)

    def _empty(self, place: "Place") -> None:
        del self._taken[place]
        emptying = self._emptying[place] = asyncio.ensure_future(place.empty())

        def emptied(task: "asyncio.Task[None]") -> None:
            del self._emptying[place]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s may have kept its memory: %s", place.name, error)
            self._advance()

        emptying.add_done_callback(emptied)


class Place:
    """Memory of one user, which it has inside `async with`, and then until others need it.

    Entering waits until there is enough; who waits can leave. Raises: UnavailableError where there never
    will be.
    """

    def __init__(self, room: Room, name: str, needs_mb: float, empty: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self.needs_mb = needs_mb
        self.users = 0  # inside now
        self._room = room
        self._give_back = empty

    async def empty(self) -> None:
        await self._give_back()

    def free(self) -> None:
        """Says that the memory has been given back, unless somebody is inside."""
        self._room._free(self)

    async def __aenter__(self) -> None:
        await self._room._enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room._leave(self)


def _too_large(place: Place, limit_mb: float) -> UnavailableError:
    return UnavailableError(
        f"{place.name} needs about {place.needs_mb:.0f} MB, and local.max_memory_gb allows {limit_mb:.0f} MB:"
        " raise that, or lower its `context_tokens`."
    )
