"""How a request upstream fails, on one screen.

UpstreamError
├── TargetError    the URL or a header is wrong; nothing was sent
├── ConnectError   no connection came about; nothing was sent
├── BrokenError    the connection ended before the reply did
└── ProtocolError  what came is no reply of HTTP/1.1, or not one that was asked for
"""

__all__ = ["BrokenError", "ConnectError", "ProtocolError", "TargetError", "UpstreamError", "reason"]


class UpstreamError(Exception):
    """Whatever fails here. The message shows neither URL nor headers."""


class TargetError(UpstreamError):
    """The URL or a header is wrong; nothing was sent."""


class ConnectError(UpstreamError):
    """No connection came about; nothing was sent."""


class BrokenError(UpstreamError):
    """The connection ended before the reply did."""


class ProtocolError(UpstreamError):
    """What came is no reply of HTTP/1.1, or not one that was asked for."""


def reason(error: Exception) -> str:
    """Never the repr; of errors of the system only what they say."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
