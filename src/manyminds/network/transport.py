"""What carries cards, asks and answers between nodes: the one shape that every way to them has.

What it carries is signed and sealed, see docs/protocol.md: a transport understands none of it.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

__all__ = ["Answer", "Send", "Sighting", "Tell", "Transport", "pack", "unpack"]

_ID_CHARS: Final = 22  # of an ask's id: 16 bytes in base64url

Send: TypeAlias = Callable[[bytes, bool], None]
"""Sends a frame to who asks, and whether it is the last. Never waits; does nothing where nobody is there."""

Answer: TypeAlias = Callable[[bytes, Send], Awaitable[None]]
"""Answers a sealed ask: see `answering.Answering.answer`."""

Tell: TypeAlias = Callable[[str, bytes], None]
"""Hears what is said of an ask besides: see `answering.Answering.tell`."""


class Sighting(Struct, frozen=True):
    """What a transport saw of another node: its card, as it came; or, without one, that it has gone."""

    node: str
    card: bytes = b""


class Transport(Protocol):
    """A way to other nodes, each known by its id. What it carries is sealed: see docs/protocol.md."""

    @property
    def notices(self) -> bool:
        """Whether who answers notices by itself that nobody listens any more."""
        ...

    def ask(self, node: str, sealed: bytes) -> AsyncGenerator[bytes, None]:
        """Frames of the answer, as they come, perhaps with others among them. Raises: ExpertError."""
        ...

    def tell(self, node: str, ask_id: str, sealed: bytes) -> None:
        """Sends what is said besides of an ask. Never waits; may get lost."""
        ...

    def announce(self, card: bytes) -> None:
        """Shows this node's card from now on."""
        ...

    def watch(self) -> AsyncGenerator[Sighting, None]:
        """Other nodes as they come, change and go; those that are here at first."""
        ...


def pack(ask_id: str, sealed: bytes) -> bytes:
    """What is told of an ask, as it is sent: its id, then the sealed message."""
    return ask_id.encode() + sealed


def unpack(sent: bytes) -> tuple[str, bytes]:
    """The reverse."""
    return sent[:_ID_CHARS].decode("ascii", "replace"), sent[_ID_CHARS:]
