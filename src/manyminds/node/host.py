"""What a membership needs of its node."""

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from manyminds.admission import Admission
from manyminds.types import Card, Chunk, Expert, Query

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Host"]


class Host(Protocol):
    """What a membership needs of its node."""

    @property
    def admission(self) -> Admission: ...

    @property
    def own_cards(self) -> Sequence[Card]:
        """Of its experts that are asked, without peers; another sequence once any has changed."""
        ...

    @property
    def own_names(self) -> Collection[str]:
        """Of its experts, also of those that are paused."""
        ...

    @property
    def paused(self) -> Collection[str]:
        """Names of experts and peers that nobody asks for now."""
        ...

    def skills(self, names: Collection[str] | None = None) -> "Vectors":
        """(k, d) float32 rows: of its own experts, or of some. Unit vectors; of documents, means of such."""
        ...

    def answer(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """Asks its network."""
        ...

    def take_in(self, expert: Expert, vectors: "Vectors | None", made_of: object) -> None:
        """One more expert, or another in its place."""
        ...

    def let_go(self, name: str) -> None: ...

    def forget(self, name: str) -> None:
        """Nobody asks it, and answers that it had a part in are gone."""
        ...
