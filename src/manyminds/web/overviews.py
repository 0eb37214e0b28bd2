"""What `/v1/admin/` shows and takes, as JSON Schema, by docs/api.md. Knows no endpoint and no node."""

from typing import Final

from manyminds.web.schemas import Schema, either, listed, record, refer

__all__ = ["overview_schemas"]

_STRING: Final[Schema] = {"type": "string"}
_NAME: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 2000,
    "pattern": r"^[^\x00-\x1f\x7f]*$",
}
_MAYBE: Final[Schema] = {"type": ["string", "null"]}
_NUMBER: Final[Schema] = {"type": "number"}
_MAYBE_NUMBER: Final[Schema] = {"type": ["number", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_NULL: Final[Schema] = {"type": "null"}
_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": _COUNT}
_ROWS: Final[Schema] = listed({"type": "object"})  # as a command prints them


def overview_schemas() -> dict[str, Schema]:
    """Of all replies, and of what is asked of them, by name."""
    named = record({"name": _NAME}) | {"additionalProperties": False}
    return {
        "AdminExperts": _experts(),
        "AdminLibrary": _library(),
        "AdminFrontier": _frontier(),
        "AdminNetwork": _network(),
        "AdminLedger": _ledger(),
        "AdminEvent": _event(),
        "AdminPauseRequest": named,
        "AdminPause": record({"name": _STRING, "paused": {"const": True}}),
        "AdminResumeRequest": named,
        "AdminResume": record({"name": _STRING, "paused": {"const": False}}),
        "AdminRemoveRequest": named,
        "AdminRemove": record({"removed": _ROWS}),
        "AdminAddRequest": _addition(),
        "AdminAdd": _added(),
    }


def _experts() -> Schema:
    now = {"spared": _BOOLEAN, "running": _BOOLEAN}
    now |= {"origin": {"enum": ["added", "file", "catalogue", "own", "peer"]}}
    shown = {"allOf": [refer("Rated"), record(now)]}
    return record({"object": {"const": "list"}, "data": listed(shown), "more": _COUNT})


def _library() -> Schema:
    chapter = {"label": _STRING, "asked": _COUNT, "right": _MAYBE_NUMBER, "peers": _MAYBE_NUMBER}
    book = {"name": _STRING, "kind": _STRING, "source": _STRING, "paused": _BOOLEAN}
    book |= {"chapters": listed(record(chapter))}
    shelf = {"label": _STRING, "size": _COUNT, "books": listed(record(book))}
    section = {"label": _STRING, "size": _COUNT, "shelves": listed(record(shelf))}
    last = {"request_id": _STRING, "at_utc": _STRING, "section": _STRING, "answered": _MAYBE}
    last |= dict.fromkeys(("considered", "asked"), listed(_STRING))
    counts = dict.fromkeys(("experts", "vectors", "parameters", "more"), _COUNT)
    return record({"sections": listed(record(section)), "last": either(record(last), _NULL)} | counts)


def _frontier() -> Schema:
    point = {"name": _STRING, "accuracy": _MAYBE_NUMBER, "graded": _COUNT, "calls": _COUNT}
    point |= {"claimed_accuracy": _MAYBE_NUMBER, "cost_usd_per_1k": _MAYBE_NUMBER}
    policy = {"policy": _STRING, "accuracy": _MAYBE_NUMBER, "graded": _COUNT, "requests": _COUNT}
    policy |= {"cost_usd_per_1k": _NUMBER}
    lists = {"experts": listed(record(point)), "policies": listed(record(policy))}
    return record({"since_utc": _STRING, "more": _COUNT} | lists)


def _network() -> Schema:
    node = record({"id": _STRING, "name": _STRING, "url": _MAYBE})
    peer = {"id": _STRING, "name": _STRING, "up": _BOOLEAN, "transport": _MAYBE, "deeds": _COUNTS}
    peer |= dict.fromkeys(("ttft_p50_s", "uptime", "trust"), _MAYBE_NUMBER)
    peer |= {"experts": {"type": ["integer", "null"]}}
    peer |= dict.fromkeys(("owed_to_it_usd", "owed_by_it_usd"), _NUMBER)
    peer |= dict.fromkeys(("answers_from_it", "answers_to_it"), _COUNT)
    receipt = {"at_utc": _STRING, "peer": _STRING, "role": {"enum": ["asked", "answered"]}}
    receipt |= {"purpose": _STRING, "prompt_tokens": _COUNT, "completion_tokens": _COUNT}
    receipt |= {"price_usd": _NUMBER, "countersigned": _BOOLEAN, "request_id": _STRING}
    lists = {"peers": listed(record(peer)), "receipts": listed(record(receipt))}
    return record({"node": either(node, _NULL), "more_peers": _COUNT, "more": _COUNT} | lists)


def _ledger() -> Schema:
    budget = {"key": _STRING, "name": _STRING, "period": _STRING}
    budget |= {"limit_usd": _NUMBER, "spent_usd": _NUMBER}
    totals = record(dict.fromkeys(("day", "key", "expert", "policy"), _ROWS))
    rows = dict.fromkeys(("requests", "privacy", "sources"), _ROWS)
    return record(
        {"since_utc": _STRING, "more": _COUNT, "totals": totals, "budgets": listed(record(budget))} | rows
    )


def _event() -> Schema:
    traffic = {"event": {"const": "traffic"}, "at_utc": _STRING}
    traffic |= dict.fromkeys(
        ("requests", "in_flight", "experts", "running", "peers", "ledger_queued"), _COUNT
    )
    traffic |= dict.fromkeys(("requests_per_min", "cost_usd", "cost_usd_per_min"), _NUMBER)
    call = {"expert": _STRING, "status": _STRING, "seconds": _NUMBER, "cost_usd": _NUMBER, "weight": _NUMBER}
    request: dict[str, Schema] = {"event": {"const": "request"}}
    request |= dict.fromkeys(("at_utc", "request_id", "policy", "strategy", "status", "section"), _STRING)
    request |= dict.fromkeys(("seconds", "cost_usd", "saved_usd"), _NUMBER)
    request |= {"panel": listed(record(call)), "answered": _MAYBE}
    changed: dict[str, Schema] = {
        "event": {"const": "changed"},
        "what": {"enum": ["experts", "network", "config"]},
    }
    return either(record(traffic), record(request), record(changed))


def _addition() -> Schema:
    texts = dict.fromkeys(("url", "model", "name", "key_env", "source"), _STRING)
    prices = dict.fromkeys(("price_in_usd_per_m", "price_out_usd_per_m"), _NUMBER | {"minimum": 0})
    probes: Schema = {"type": "integer", "minimum": 8, "maximum": 10_000}
    more: dict[str, Schema] = {"skills": listed(_STRING, maxItems=64), "probe": _BOOLEAN, "probes": probes}
    return record(texts | prices | more, ["url"]) | {"additionalProperties": False}


def _added() -> Schema:
    events: dict[str, dict[str, Schema]] = {
        "models": {"models": listed(_STRING)},
        "added": {"name": _STRING},
        "probing": {"asked": _COUNT, "of": _COUNT},
        "probed": {"result": {"type": "object"}},
        "not_probed": {"why": _STRING},
        "error": {"message": _STRING},
    }
    return either(*(record({"event": {"const": name}} | said) for name, said in events.items()))
