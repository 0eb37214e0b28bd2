"""Which requests come from a web page that has no business here. Knows headers alone.

A page of any site may make its reader's browser send requests to the reader's own machine, and cannot forge
what the browser says in `Host`, `Origin` and `Sec-Fetch-Site`. Other clients send no `Origin`.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from manyminds.errors import ForbiddenError

__all__ = ["check_origin", "check_same_origin"]


def check_origin(path: str, headers: Mapping[bytes, bytes], *, loopback: bool) -> None:
    """Refuses what pages of other sites send to `/v1`, and on a loopback address whoever calls it by a name.

    Such a name is one that a site has pointed at this machine (DNS rebinding): for the browser, the site's
    pages and this node are one origin then.

    Raises: ForbiddenError.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if loopback and host and not _calls_loopback(host):
        raise ForbiddenError(
            f"This node serves its own machine: call it by 127.0.0.1 or localhost, not by {host!r:.80}."
        )
    if not path.startswith("/v1/"):
        return
    origin = headers.get(b"origin")
    from_here = origin is None
    if origin is not None:
        page, name = _name(origin.decode("latin-1")), _name(f"//{host}")
        from_here = bool(page) and (page == name or (loopback and _is_loopback(page)))
    if not from_here or headers.get(b"sec-fetch-site") == b"cross-site":
        raise ForbiddenError("This request comes from a web page of another site: it may not use this node.")


def check_same_origin(headers: Mapping[bytes, bytes], *, tls: bool) -> None:
    """Refuses every page but this node's own, also those of other ports of the same machine.

    Args:
        headers: the request's.
        tls: whether this node itself speaks TLS: else a proxy before it may.

    Raises: ForbiddenError.
    """
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", b"none")
    own = [scheme + headers.get(b"host", b"") for scheme in (b"https://", b"http://")[: 1 if tls else 2]]
    if (origin is not None and origin.lower() not in [one.lower() for one in own]) or site not in (
        b"same-origin",
        b"none",
    ):
        raise ForbiddenError(
            "Only this node's own page may administer it, at the address by which the node is called."
        )


@lru_cache(maxsize=64)  # most clients say the same
def _calls_loopback(host: str) -> bool:
    return _is_loopback(_name(f"//{host}"))


def _name(url: str) -> str:
    """The host's name or address, in lower case and without its port; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
