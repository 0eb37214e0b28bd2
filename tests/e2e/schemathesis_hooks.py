"""What JSON Schema cannot say: changes each request that Schemathesis drew, before it is sent.

So most of them get to an expert: as they are drawn, they end at a name that nobody has, or at a deadline.
"""

from typing import Any

import schemathesis

__all__ = ["before_call"]

MODELS = ("auto", "fast", "a", "plain")
EXPERTS = ("a", "b", "c", "plain")
ENOUGH_S = 60
DIMENSIONS = 384  # of the encoder's vectors


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    if isinstance(case.body, dict | list):
        found = whole(case.body)
        if isinstance(found, dict):
            aim(found, case.path)
        if found != case.body or repr(found) != repr(case.body):
            case.body = found


def whole(value: Any) -> Any:
    """64.0 is a whole number to JSON Schema, and is none to this node: it becomes 64."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def aim(body: dict[str, Any], path: str) -> None:
    """Names what there is, allows time enough, and chooses a tool that is offered. What is wrong stays so."""
    if path.startswith("/v1/admin/") and body.get("name") in EXPERTS:
        body["name"] = "nobody"  # else those who are asked would be paused, or gone
    limits = body.get("manyminds")
    if isinstance(limits, dict) and number(limits.get("deadline_s"), 0.001, ENOUGH_S):
        limits["deadline_s"] = ENOUGH_S
    if isinstance(model := body.get("model"), str):
        body["model"] = "auto" if path == "/v1/embeddings" else known(model)
    if isinstance(models := body.get("models"), list):
        body["models"] = [known(name) if isinstance(name, str) else name for name in models]
    named = [body.get("model"), *(body["models"] if isinstance(models, list) else [])]
    if isinstance(limits, dict) and any(name in EXPERTS for name in named):
        limits.pop("require", None)  # who asks one expert alone requires nobody else
    if number(body.get("dimensions"), DIMENSIONS, 10_000):
        body["dimensions"] = DIMENSIONS
    for field in ("tools", "tool_choice"):
        rename(body.get(field))


def known(name: str) -> str:
    """An expert or a policy, and now and then one that does not exist."""
    return MODELS[len(name) % len(MODELS)] if len(name) != 7 else name


def number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def rename(value: Any) -> None:
    for inner in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        rename(inner)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        value["name"] = "weather"
