"""The OpenAPI document of this node's own API. Knows every endpoint, and serves none.

What bodies hold comes from `schemas`, what can go wrong from `errors`, what is told of answers from `types`.
"""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from manyminds import errors
from manyminds.errors import ManymindsError
from manyminds.private import PRIVATE
from manyminds.ratings import Rated
from manyminds.types import Report
from manyminds.web.admin import ADMIN
from manyminds.web.overviews import overview_schemas
from manyminds.web.schemas import Schema, either, listed, record, refer, request_schemas

__all__ = ["document"]

_JSON: Final = "application/json"
_ANY: Final[Schema] = {}
_STRING: Final[Schema] = {"type": "string"}
_MAYBE: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_OVERLOADED: Final = 529  # what a 503 is to Anthropic's clients


def document(version: str) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1. `version` is the package's."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "manyminds",
            "version": version,
            "summary": "A network of neural networks behind one endpoint.",
            "description": "OpenAI's wire formats, and Anthropic's. Nobody needs a key on a loopback "
            "address, everybody does elsewhere.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"x-api-key": []}],
        "paths": {path: {method: operation} for path, method, operation in _operations()},
        "components": {
            "schemas": request_schemas() | _reply_schemas(),
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


# --- endpoints -------------------------------------------------------------------------------------

_Kinds = Sequence[type[ManymindsError]]
_EVERYWHERE: Final[_Kinds] = (ManymindsError, errors.ForbiddenError)
_WITH_A_KEY: Final[_Kinds] = (*_EVERYWHERE, errors.UnauthorizedError)
_WITH_A_BODY: Final[_Kinds] = (
    *_WITH_A_KEY,
    *(
        errors.InvalidRequestError,
        errors.TooLargeError,
        errors.HeadTooLargeError,
        errors.SlowRequestError,
        errors.RateLimitError,
    ),
)
_ANSWERING: Final[_Kinds] = (
    *_WITH_A_BODY,
    *(errors.ModelNotFoundError, errors.NoExpertError, errors.BudgetError),
    *(errors.ExpertError, errors.UnavailableError, errors.RejectedError, errors.RefusedError),
    *(errors.GarbageError, errors.CutError, errors.SlowError),
    *(errors.AllExpertsFailedError, errors.DeadlineError),
)
_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of every endpoint."""
    yield "/v1/chat/completions", "post", _answers("ChatCompletion", "Answers a conversation.")
    yield (
        "/v1/completions",
        "post",
        _answers("Completion", "The same as a text completion: one prompt, no tools."),
    )
    yield "/v1/responses", "post", _answers("Response", "The same as OpenAI's Responses. Nothing is stored.")
    yield "/v1/messages", "post", _answers("Message", "The same as Anthropic's Messages.", "MessageError")
    counting = _posts("TokenCount", "Estimates a message's tokens.", _WITH_A_BODY, "MessageError")
    yield "/v1/messages/count_tokens", "post", counting
    yield (
        "/v1/embeddings",
        "post",
        _posts("Embedding", "Turns texts into vectors, by its own encoder or an expert.", _ANSWERING),
    )
    grading = (*_WITH_A_BODY, errors.UnknownRequestError, errors.AlreadyGradedError)
    yield "/v1/feedback", "post", _posts("Feedback", "Takes how right an answer was.", grading)
    yield (
        "/v1/models",
        "get",
        _gets("ModelList", "Lists the policies and the experts, all of which can be asked."),
    )
    one = (*_WITH_A_KEY, errors.ModelNotFoundError)
    yield "/v1/models/{name}", "get", _gets("Model", "Shows one of them.", one) | {"parameters": [_NAME]}
    yield (
        "/v1/experts",
        "get",
        _gets("ExpertList", "Shows every expert's card, and beside its claims what was measured."),
    )
    shown = _posts("Markdown", "Turns Markdown into HTML that is safe to show.", _WITH_A_BODY)
    yield "/v1/markdown", "post", shown
    yield "/", "get", _gets("Page", "The node's page, for browsers.", _EVERYWHERE, "text/html")
    asset = _gets("Asset", "What the page is made of.", (*_EVERYWHERE, errors.EndpointNotFoundError))
    asset["responses"]["200"]["content"] = {
        kind: {"schema": refer("Asset")} for kind in ("text/css", "text/javascript", "image/svg+xml")
    }
    yield "/assets/{name}", "get", asset | {"parameters": [_NAME]}
    yield from _administration()
    yield "/metrics", "get", _gets("Metrics", "Figures in Prometheus' text format.", kind="text/plain")
    yield "/openapi.json", "get", _gets("Document", "This document.", _EVERYWHERE)
    yield "/health/live", "get", _gets("Live", "Replies while the process serves.", _EVERYWHERE)
    ready = _gets("Ready", "Says whether anybody can be asked.", _EVERYWHERE)
    ready["responses"]["503"] = _reply("Not yet.", {_JSON: refer("Ready")})
    yield "/health/ready", "get", ready


def _administration() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What a node's owner sees, and has done."""
    summaries = {
        "Experts": "Shows every expert's card, what was measured, and how it is just now.",
        "Library": "Shows who is good at what, and the way of the last request.",
        "Frontier": "Shows how right experts and policies were in a week, and what that cost.",
        "Network": "Shows other nodes, and what is owed between them and this one.",
        "Ledger": "Shows the latest requests, sums, budgets and accounts.",
    }
    for name, summary in summaries.items():
        yield f"{ADMIN}{name.lower()}", "get", _gets(f"Admin{name}", summary)
    kinds = (*_WITH_A_KEY, errors.RateLimitError)
    yield (
        f"{ADMIN}events",
        "get",
        _gets("AdminEvent", "Tells of traffic, requests and changes, for ever.", kinds, "text/event-stream"),
    )
    doing = {
        "Pause": "Has an expert asked by nobody until it is resumed.",
        "Resume": "Has an expert that was paused asked again.",
        "Remove": "Withdraws an expert: the network is as if it had never been there.",
    }
    for name, summary in doing.items():
        changes = _posts(f"Admin{name}", summary, (*_WITH_A_BODY, errors.ModelNotFoundError))
        yield f"{ADMIN}{name.lower()}", "post", changes
    adding = _posts(
        "AdminAdd", "Adds an expert behind a URL, probes it, and tells how it goes.", _WITH_A_BODY
    )
    adding["responses"]["200"]["content"] = {"text/event-stream": {"schema": refer("AdminAdd")}}
    yield f"{ADMIN}add", "post", adding


def _gets(name: str, summary: str, kinds: _Kinds = _WITH_A_KEY, kind: str = _JSON) -> dict[str, Any]:
    found = {"200": _reply(name, {kind: refer(name)})} | _refusals(kinds, "Error")
    return {"operationId": f"get{name}", "summary": summary, "responses": found}


def _posts(name: str, summary: str, kinds: _Kinds, error: str = "Error") -> dict[str, Any]:
    body = {"required": True, "content": {_JSON: {"schema": refer(f"{name}Request")}}}
    found = {"200": _reply(name, {_JSON: refer(name)})} | _refusals(kinds, error)
    return {"operationId": f"create{name}", "summary": summary, "requestBody": body, "responses": found}


def _answers(name: str, summary: str, error: str = "Error") -> dict[str, Any]:
    operation = _posts(name, summary, _ANSWERING, error)
    streamed = {"text/event-stream": refer("Event")}
    operation["responses"]["200"] = _reply(
        "The answer: one object, or with `stream` server-sent events, of which one with an error says that "
        "the answer broke off.",
        {_JSON: refer(name)} | streamed,
    )
    return operation


# --- what comes back -------------------------------------------------------------------------------


def _reply(description: str, content: Mapping[str, Schema], *more: str) -> dict[str, Any]:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-request-id", *more)}
    kinds = {kind: {"schema": schema} for kind, schema in content.items()}
    return {"description": description, "headers": headers, "content": kinds}


def _refusal(description: str, error: str) -> dict[str, Any]:
    return _reply(description, {_JSON: refer(error)}, "retry-after", "x-should-retry")


def _refusals(kinds: _Kinds, error: str) -> dict[str, Any]:
    """Replies to what can go wrong, by status: each says which errors have it."""
    meanings: dict[int, list[str]] = {}
    for kind in kinds:
        status = (
            _OVERLOADED if kind.status == HTTPStatus.SERVICE_UNAVAILABLE and error != "Error" else kind.status
        )
        meaning = f"`{kind.code}`: {kind.__doc__}" if kind.code else "Something went wrong inside this node."
        meanings.setdefault(status, []).append(meaning)
    return {str(status): _refusal("\n\n".join(said), error) for status, said in sorted(meanings.items())}


def _headers() -> dict[str, Any]:
    return {
        "x-request-id": {
            "description": "The request's name, in the ledger too.",
            "required": True,
            "schema": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
        },
        "retry-after": {"description": "Seconds until another try may do better.", "schema": _COUNT},
        "x-should-retry": {
            "description": "Whether another try may do better.",
            "schema": {"enum": ["false"]},
        },
    }


def _everyone(kind: type[ManymindsError]) -> Iterator[type[ManymindsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _everyone(child)


def _reply_schemas() -> dict[str, Schema]:
    known = list(_everyone(ManymindsError))
    fields = {"message": _STRING, "param": _MAYBE}
    fields |= {"type": {"enum": sorted({kind.type for kind in known})}}
    fields |= {"code": {"enum": [None, *sorted({kind.code for kind in known if kind.code})]}}
    said = record({"type": _STRING, "message": _STRING})
    _, told = msgspec.json.schema_components([Report, Rated], ref_template="#/components/schemas/{name}")
    return {
        **msgspec.json.decode(msgspec.json.encode(told)),  # whose defaults are tuples else
        **_answer_schemas(),
        "PrivateReport": record(
            {"request_id": _STRING, "policy": {"const": PRIVATE}, "privacy": refer("Privacy")}
        ),
        "Error": record({"error": record(fields)}),
        "MessageError": record({"type": {"const": "error"}, "error": said, "request_id": _STRING}),
        "Event": record({"event": _STRING, "data": _STRING}, ["data"]),
        "TokenCount": record({"input_tokens": _COUNT}),
        "Embedding": _embedding(),
        "Feedback": record(
            {"object": {"const": "feedback"}, "request_id": _STRING, "learnt": {"type": "boolean"}}
        ),
        "Model": _model(),
        "ModelList": record({"object": {"const": "list"}, "data": listed(refer("Model"))}),
        "ExpertList": record({"object": {"const": "list"}, "data": listed(refer("Rated"))}),
        "Markdown": record({"html": _STRING}),
        "Page": _STRING,
        "Asset": _STRING,
        "Metrics": _STRING,
        "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
        **overview_schemas(),
        "Live": record({"status": {"const": "live"}}),
        "Ready": record({"status": {"enum": ["ready", "not ready"]}, "experts": _COUNT}),
    }


def _model() -> Schema:
    return record({"id": _STRING, "object": {"const": "model"}, "created": _COUNT, "owned_by": _STRING})


def _embedding() -> Schema:
    numbers = listed({"type": "number"})
    vector = {"object": {"const": "embedding"}, "index": _COUNT, "embedding": either(numbers, _STRING)}
    usage = record({"prompt_tokens": _COUNT, "total_tokens": _COUNT})
    fields = {"object": {"const": "list"}, "data": listed(record(vector)), "model": _STRING, "usage": usage}
    return record(fields)


def _answer_schemas() -> dict[str, Schema]:
    """Of whole answers. What an expert said besides is in them too."""
    usage = record(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _COUNT))
    spent = record({"input_tokens": _COUNT, "output_tokens": _COUNT})
    head = {"id": _STRING, "created": {"type": "integer"}, "model": _STRING, "usage": usage}
    told = {"manyminds": either(refer("PrivateReport"), refer("Report"))}
    message = record({"role": {"const": "assistant"}, "content": _MAYBE, "refusal": _MAYBE})
    ended = {"index": _COUNT, "finish_reason": _MAYBE, "logprobs": {"type": ["object", "null"]}}
    completion = head | {
        "object": {"const": "chat.completion"},
        "choices": listed(record(ended | {"message": message})),
    }
    text = head | {
        "object": {"const": "text_completion"},
        "choices": listed(record(ended | {"text": _STRING})),
    }
    response = {"id": _STRING, "object": {"const": "response"}, "created_at": _COUNT, "model": _STRING}
    response |= {"status": {"enum": ["completed", "incomplete"]}, "output": listed(record({"type": _STRING}))}
    said = {"id": _STRING, "type": {"const": "message"}, "role": {"const": "assistant"}, "model": _STRING}
    said |= {"content": listed(record({"type": _STRING})), "stop_reason": _STRING, "stop_sequence": _MAYBE}
    return {
        "ChatCompletion": record(completion | told),
        "Completion": record(text | told),
        "Response": record(response | {"usage": spent, "error": _ANY} | told),
        "Message": record(said | {"usage": spent} | told),
    }
