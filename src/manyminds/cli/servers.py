"""What OpenAI-compatible servers say they serve. Asks for their lists of models, and no model anything."""

import asyncio
import math
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from manyminds.errors import ConfigError, GarbageError, ManymindsError, RejectedError, UnavailableError
from manyminds.upstream import Client, ConnectError, Target, UpstreamError

__all__ = ["Offered", "is_ours", "offered"]

_LIST_BYTES: Final = 16_000_000  # of a list of models: those of the largest carriers are below 2 MB
_MOST: Final = 10_000  # models of one server
_NAME_CHARS: Final = 256
_MOST_USD: Final = 1e6  # per million tokens; what a server says is untrusted
_MOST_TOKENS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Offered:
    """A model, as its server lists it. What is None or empty it does not say."""

    model: str
    owner: str = ""
    context_tokens: int | None = None
    price_in_usd_per_m: float | None = None
    price_out_usd_per_m: float | None = None


class _Listed(msgspec.Struct):
    id: str
    owned_by: Any = None
    max_model_len: Any = None  # vLLM
    context_length: Any = None  # OpenRouter
    pricing: Any = None  # OpenRouter: dollars per token, in words


class _List(msgspec.Struct):
    data: list[_Listed]


_decode = msgspec.json.Decoder(_List).decode


async def offered(client: Client, url: str, key: str, key_env: str, budget_s: float) -> list[Offered]:
    """The models at a base URL, by name.

    Args:
        client: which asks; it follows no redirect.
        url: such as http://127.0.0.1:11434/v1
        key: sent where it is not empty, and never shown.
        key_env: where it is from, for what is said of it.
        budget_s: for all of it.

    Raises:
        ConfigError: `url` is no base URL.
        UnavailableError: Nobody answers there, or not in time.
        RejectedError: It wants a key, or refuses this one, or the path is wrong, or is another's by now.
        GarbageError: What answers is no list of models.
    """
    _check(url)
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        async with asyncio.timeout(budget_s):
            response = await client.get(Target(f"{url.rstrip('/')}/models", headers))
            try:
                status, moved = response.status, response.headers.get("location", "")
                body = await response.whole(_LIST_BYTES) if status == 200 else b""
            finally:
                response.close()
    except TimeoutError:
        raise UnavailableError(f"{url} did not answer within {budget_s:g} s: is its server busy?") from None
    except ConnectError as error:
        raise UnavailableError(f"{url} cannot be reached ({error}): is its server running?") from None
    except UpstreamError as error:
        raise GarbageError(f"{url} does not answer as a server of models does ({error}).") from None
    if status != 200:
        raise _refused(url, status, moved, key, key_env)
    try:
        listed = _decode(body).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise GarbageError(f"{url} answers, yet with no list of models: {_meant(url)}") from None
    found = {entry.id: _offer(entry) for entry in listed[:_MOST] if _is_name(entry.id)}
    return [found[name] for name in sorted(found)]


def is_ours(models: list[Offered]) -> bool:
    """Whether the server is a manyminds node: its first policy is its own."""
    return any(offer.model == "auto" and offer.owner == "manyminds" for offer in models)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"{url!r:.200} is no URL: it must be like http://HOST:PORT/v1.") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "A base URL is like http://HOST:PORT/v1, without user, password, query and fragment: a secret"
            " belongs into an environment variable, see --key-env."
        )


def _refused(url: str, status: int, moved: str, key: str, key_env: str) -> ManymindsError:
    if status in (401, 403):
        if key:
            return RejectedError(
                f"{url} refuses the key in {key_env} (status {status}): is it of that server?"
            )
        return RejectedError(
            f"{url} wants a key (status {status}): put it into an environment variable and name that, as"
            " --key-env MY_KEY."
        )
    if status in (301, 302, 303, 307, 308):
        where = f" to {moved!r:.200}" if moved else ""
        return RejectedError(f"{url} redirects{where}, which is not followed: give that URL if you trust it.")
    if status in (404, 405):
        return RejectedError(f"{url} has no list of models (status {status}): {_meant(url)}")
    return UnavailableError(f"{url} answered with status {status}: see the log of its server.")


def _meant(url: str) -> str:
    parts = urlsplit(url)
    above, found, _ = parts.path.rstrip("/").partition("/v1")
    meant = urlunsplit(parts._replace(path=f"{above}/v1"))
    if found and parts.path.rstrip("/") == f"{above}/v1":
        return "give the base URL of an OpenAI-compatible server."
    return f"did you mean {meant}?"


def _offer(entry: _Listed) -> Offered:
    prices = entry.pricing if isinstance(entry.pricing, dict) else {}
    return Offered(
        model=entry.id,
        owner=entry.owned_by if isinstance(entry.owned_by, str) else "",
        context_tokens=_tokens(entry.max_model_len) or _tokens(entry.context_length),
        price_in_usd_per_m=_usd_per_m(prices.get("prompt")),
        price_out_usd_per_m=_usd_per_m(prices.get("completion")),
    )


def _is_name(name: str) -> bool:
    """Whether it can be shown on a terminal and sent."""
    return 0 < len(name) <= _NAME_CHARS and name.isprintable()


def _tokens(said: Any) -> int | None:
    return said if type(said) is int and 0 < said <= _MOST_TOKENS else None


def _usd_per_m(said: Any) -> float | None:
    try:
        price = round(float(said) * 1e6, 9)
    except (TypeError, ValueError, OverflowError):
        return None
    return price if math.isfinite(price) and 0 <= price <= _MOST_USD else None
