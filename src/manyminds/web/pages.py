"""The page at `/` and its files. Knows none of them: they lie in `static`, and are read once.

No path that somebody asks for reaches the file system.
"""

import gzip
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from manyminds.web.exchange import Exchange
from manyminds.web.replies import named, new_id

__all__ = ["ASSETS", "HOME", "POLICY", "Page", "pages"]

HOME: Final = "/"
"""Where the page is."""

ASSETS: Final = "/assets/"
"""Where its files are, by their names."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types manyminds",
    )
)
"""What the page may do: run and load what is this node's own, and be in nobody's frame."""

_KINDS: Final = MappingProxyType(
    {
        "css": "text/css; charset=utf-8",
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)
_HEADERS: Final = (
    f"content-security-policy: {POLICY}\r\n"
    "x-content-type-options: nosniff\r\n"
    "x-frame-options: DENY\r\n"
    "referrer-policy: no-referrer\r\n"
    "cross-origin-opener-policy: same-origin\r\n"
    "cache-control: no-cache\r\n"
    "vary: accept-encoding\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class Page:
    """One file as it is sent, plain and packed; see `connection.Serve`."""

    kind: str
    plain: bytes
    packed: bytes
    tag: str  # of its content

    async def __call__(self, exchange: Exchange) -> None:
        packs = _packs(exchange.headers.get(b"accept-encoding", b"").decode("latin-1"))
        tag = f'"{self.tag}-gzip"' if packs else f'"{self.tag}"'
        head = named(new_id()) + _HEADERS + f"etag: {tag}\r\n".encode()
        known = exchange.headers.get(b"if-none-match", b"").decode("latin-1")
        if tag in [one.strip().removeprefix("W/") for one in known.split(",")] or known.strip() == "*":
            exchange.reply(304, head, b"")
            return
        head += f"content-type: {self.kind}\r\n".encode() + (b"content-encoding: gzip\r\n" if packs else b"")
        exchange.reply(200, head, self.packed if packs else self.plain)


def pages() -> Mapping[str, Callable[[Exchange], Coroutine[Any, Any, None]]]:
    """Every file by its path, and the page. Blocks, for milliseconds."""
    found: dict[str, Page] = {}
    for file in files("manyminds.web").joinpath("static").iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = HOME if file.name == "index.html" else ASSETS + file.name
            found[path] = _page(kind, file.read_bytes())
    return found


def _page(kind: str, plain: bytes) -> Page:
    packed = gzip.compress(plain, mtime=0)
    return Page(kind, plain, packed, hashlib.sha256(plain).hexdigest()[:32])


def _packs(accepts: str) -> bool:
    """Whether a client takes gzip: it is named, and not with a quality of 0 (RFC 9110, 12.5.3)."""
    for one in accepts.lower().split(","):
        name, _, quality = one.replace(" ", "").partition(";")
        if name == "gzip":
            return quality.removeprefix("q=").strip("0.") != "" or not quality
    return False
