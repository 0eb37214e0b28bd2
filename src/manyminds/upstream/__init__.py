"""HTTP/1.1 to whoever answers upstream, at the least cost: a `Client` posts to a `Target`.

Knows no format of what it carries. Redirects are not followed, nothing is asked for compressed, no task is
started, and the only limit of time is the one for connecting. A reply that nobody reads to its end has its
connection closed at once, which is how work upstream is cancelled.
"""

from manyminds.upstream.client import Client
from manyminds.upstream.connection import Response
from manyminds.upstream.errors import BrokenError, ConnectError, ProtocolError, TargetError, UpstreamError
from manyminds.upstream.target import Target

__all__ = [
    "BrokenError",
    "Client",
    "ConnectError",
    "ProtocolError",
    "Response",
    "Target",
    "TargetError",
    "UpstreamError",
]
