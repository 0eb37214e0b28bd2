"""Clients' and experts' JSON to and from the types. Knows no socket and no expert."""

from manyminds.wire.chat import CHAT
from manyminds.wire.completions import COMPLETIONS
from manyminds.wire.dialect import Dialect, Reply
from manyminds.wire.embeddings import EMBEDDINGS, EmbeddingRequest, embeddings_body, parse_embeddings
from manyminds.wire.events import Events, error_text, parse_chunk, parse_completion, parse_vectors
from manyminds.wire.messages import MESSAGES, count_tokens
from manyminds.wire.replies import completion, error_body, event, report_object, stream_end, written
from manyminds.wire.requests import (
    at_temperature,
    capped,
    embedding_body,
    onward_body,
    parse_request,
    request_body,
    rewritten,
)
from manyminds.wire.responses import RESPONSES

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "EMBEDDINGS",
    "MESSAGES",
    "RESPONSES",
    "Dialect",
    "EmbeddingRequest",
    "Events",
    "Reply",
    "at_temperature",
    "capped",
    "completion",
    "count_tokens",
    "embedding_body",
    "embeddings_body",
    "error_body",
    "error_text",
    "event",
    "onward_body",
    "parse_chunk",
    "parse_completion",
    "parse_embeddings",
    "parse_request",
    "parse_vectors",
    "report_object",
    "request_body",
    "rewritten",
    "stream_end",
    "written",
]
