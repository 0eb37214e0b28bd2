"""What a node takes back, as it stands on its card. Needs nothing that signs or seals: a node that is alone
can write it down, too.
"""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Withdrawal"]


class Withdrawal(Struct, frozen=True, omit_defaults=True):
    """What a node takes back: whatever others have learnt or kept of it until then is void.

    Attributes:
        at: when, in milliseconds since 1970; of two, the higher counts, and the same one once.
        whole: nobody may ask it, until a newer card says otherwise.
        sources: behind it, that it does not ask for others any more; for people.
    """

    at: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    whole: bool = False
    sources: Annotated[tuple[Annotated[str, Meta(max_length=400)], ...], Meta(max_length=64)] = ()
