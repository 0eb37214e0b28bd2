"""HTTP/1.1 as this node speaks it: uvicorn's, without a change of protocol."""

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Protocol"]


class Protocol(HttpToolsProtocol):
    """One connection, where an offer to upgrade is ignored, as RFC 9110 (7.8) allows.

    The parser cannot ignore it: it takes what follows the headers for the other protocol, not for a body.
    So uvicorn begins nothing yet, and a new parser reads the same request without the offer.
    """

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() is not None

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        try:
            while True:
                try:
                    return self.parser.feed_data(rest)
                except HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
                    head = self._head_without_offer()
                    self.parser = HttpRequestParser(self)
                    self.parser.feed_data(head)
        except (HttpParserError, HttpParserUpgrade):  # of an upgrade: CONNECT, which nobody offers
            self.send_400_response("Invalid HTTP request received.")

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])
