"""Who is let in, and what a request counts. Knows headers and queries; the rules are `admission`'s."""

from collections.abc import Mapping

from manyminds.admission import Admission, Rates
from manyminds.errors import ForbiddenError, ManymindsError
from manyminds.types import Key, Query
from manyminds.web.aliases import Aliases

__all__ = ["Entry", "everybody", "identify"]

_NO_RATES = Rates()


def identify(admission: Admission, headers: Mapping[bytes, bytes]) -> Key | None:
    """Whose request it is. Raises: UnauthorizedError."""
    return admission.identify(headers.get(b"authorization"), headers.get(b"x-api-key"))


def everybody() -> Admission:
    """A door without keys, which lets a thousand in at once."""

    async def lease(key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
        return 0

    async def give_back(key_id: str, period: str, nusd: int) -> None:
        return None

    return Admission({}, open=True, most_at_once=1000, lease=lease, give_back=give_back)


class Entry:
    """One request's way in: its key, and what it counts for that key's rates."""

    __slots__ = ("_admission", "_tokens", "key", "rates")

    def __init__(self, admission: Admission, key: Key) -> None:
        self._admission = admission
        self._tokens = 0
        self.key = key
        self.rates = _NO_RATES

    def admit(self, query: Query, aliases: Aliases) -> None:
        """Lets the query pass, as the caller wrote it, whose names may be aliases.

        Raises: ForbiddenError, RateLimitError, InvalidRequestError, UnauthorizedError.
        """
        for name in (query.model, *query.fallbacks):
            self._allow(name, aliases)
        sampling = query.sampling
        tokens = query.estimated_tokens + (sampling.max_tokens or 0) * sampling.n
        try:
            self.rates = self._admission.take(self.key, tokens)
        except ManymindsError:
            self.rates = self._admission.rates(self.key)  # for the headers of the refusal
            raise
        self._tokens = tokens

    def settle(self, tokens: int) -> None:
        """What it came to, once."""
        taken, self._tokens = self._tokens, 0
        if taken != tokens:
            self._admission.settle_tokens(self.key, taken, tokens)

    def _allow(self, name: str, aliases: Aliases) -> None:
        """A key that is for an alias is for what it stands for; and for an alias of all that it is for."""
        try:
            self._admission.allows(self.key, name)
        except ForbiddenError:
            targets = aliases.targets(name)
            if targets == (name,):
                raise
            for target in targets:
                self._admission.allows(self.key, target)
