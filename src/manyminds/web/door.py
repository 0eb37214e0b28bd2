"""Who is let in, and what a request counts. Knows headers and queries; the rules are `admission`'s."""

from dataclasses import replace

from starlette.types import Scope

from manyminds.admission import Admission, Rates
from manyminds.errors import ManymindsError
from manyminds.types import Key, Query

__all__ = ["Entry", "credentials", "everybody"]


def credentials(scope: Scope) -> tuple[bytes | None, bytes | None]:
    """The headers `authorization` and `x-api-key`."""
    bearer = x_api_key = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            bearer = value
        elif name == b"x-api-key":
            x_api_key = value
    return bearer, x_api_key


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

    def __init__(self, admission: Admission, scope: Scope) -> None:
        """Raises: UnauthorizedError."""
        self._admission = admission
        self._tokens = 0
        self.key: Key | None = admission.identify(*credentials(scope))
        self.rates = _NO_RATES

    def admit(self, query: Query) -> Query:
        """The query with its key. Raises: ForbiddenError, RateLimitError, InvalidRequestError."""
        if self.key is None:
            return query
        self._admission.allows(self.key, query.model)
        sampling = query.sampling
        tokens = query.estimated_tokens + (sampling.max_tokens or 0) * sampling.n
        try:
            self.rates = self._admission.take(self.key, tokens)
        except ManymindsError:
            self.rates = self._admission.rates(self.key)  # for the headers of the refusal
            raise
        self._tokens = tokens
        return replace(query, key=self.key)

    def settle(self, tokens: int) -> None:
        """What it came to, once."""
        taken, self._tokens = self._tokens, 0
        if taken != tokens:
            self._admission.settle_tokens(self.key, taken, tokens)


_NO_RATES = Rates()
