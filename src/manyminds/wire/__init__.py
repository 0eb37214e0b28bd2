"""OpenAI JSON to and from the types. Knows no socket and no expert."""

from manyminds.wire.events import Events, error_text, parse_chunk
from manyminds.wire.replies import completion, error_body, event, report_object, stream_end, written
from manyminds.wire.requests import parse_request, request_body

__all__ = [
    "Events",
    "completion",
    "error_body",
    "error_text",
    "event",
    "parse_chunk",
    "parse_request",
    "report_object",
    "request_body",
    "stream_end",
    "written",
]
