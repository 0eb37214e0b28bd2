"""An address and what is sent to it every time. Knows no socket."""

from base64 import b64encode
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from manyminds.upstream.errors import TargetError

__all__ = ["Origin", "Target"]

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port: whoever shares them can share connections."""

_IN_A_PATH = "/?%:@!$&'()*+,;=-._~"
_IN_A_NAME = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class Target:
    """Where requests go, and what is the same in all of them: made once.

    Args:
        url: http or https; its user and password, if any, become an `authorization` header.
        headers: sent besides `host`, `accept-encoding` and what frames the body.

    Raises:
        TargetError: either is wrong, such as a key with a line break in it.
    """

    __slots__ = ("head", "origin")

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        if any(c <= " " or c == "\x7f" for c in url):
            raise TargetError("the URL has a blank or a control character in it")
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("ascii" if url.isascii() else "idna").decode()
            port = parts.port
        except ValueError:
            raise TargetError("the URL has no valid host and port") from None
        if parts.scheme not in ("http", "https") or not host:
            raise TargetError("the URL is not like http://HOST:PORT/PATH")
        fields = {name.lower(): value for name, value in headers.items()}
        if parts.username is not None and "authorization" not in fields:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            fields["authorization"] = "Basic " + b64encode(pair.encode()).decode()
        shown = f"[{host.partition('%')[0]}]" if ":" in host else host
        fields = {"host": f"{shown}:{port}" if port else shown, "accept-encoding": "identity"} | fields
        path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_IN_A_PATH)
        lines = [f"{path} HTTP/1.1", *(_line(name, value) for name, value in fields.items()), ""]
        default = 443 if parts.scheme == "https" else 80
        self.origin: Origin = (parts.scheme, host, default if port is None else port)
        self.head = "\r\n".join(lines).encode("latin-1")  # all but the method and what frames the body


def _line(name: str, value: str) -> str:
    if not name or not _IN_A_NAME.issuperset(name):
        raise TargetError(f"{name!r:.40} is no name of a header")
    if any((c < " " and c != "\t") or c == "\x7f" or c > "\xff" for c in value):
        raise TargetError(f"the header {name!r:.40} holds what no header can: a line break, or no Latin-1")
    return f"{name}: {value}"
