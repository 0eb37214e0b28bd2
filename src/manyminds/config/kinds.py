"""What each kind of expert needs, and what it may not be told. Reads no file and knows no expert."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from manyminds.config.keys import ExpertEntry, reference
from manyminds.errors import ConfigError

__all__ = ["check_kind", "check_writers"]

_NEEDS: Final = MappingProxyType({"openai": "url", "local": "path", "recorded": "path", "documents": "path"})
_OF_DOCUMENTS: Final = ("writer", "cites", "watch")
_OF_MODELS: Final = ("url", "model", "key_env", "context_tokens", "offers")
_OWN: Final = "auto"  # as a writer: this node's own network


def check_kind(entry: ExpertEntry, told: Collection[str], file: object) -> None:
    """Raises: ConfigError where an entry lacks what its kind takes, or says what is of another kind.

    Args:
        entry: what is said.
        told: the keys that the file itself has.
        file: which says so.
    """
    needed = _NEEDS[entry.kind]
    if not getattr(entry, needed):
        about = reference()[f"expert.{needed}"]["description"]
        raise ConfigError(
            f"{file}: expert {entry.name!r} is of kind {entry.kind} and needs {needed}. {about}"
        )
    strange = _OF_MODELS if entry.kind == "documents" else _OF_DOCUMENTS
    if wrong := [key for key in strange if key in told]:
        todo = "remove it." if entry.kind == "documents" else 'remove it, or write kind = "documents".'
        raise ConfigError(
            f"{file}: expert {entry.name!r} is of kind {entry.kind}, and {wrong[0]} is not for that: {todo}"
        )
    if "embeddings" in entry.offers and (entry.kind != "openai" or set(entry.offers) != {"embeddings"}):
        raise ConfigError(
            f"{file}: expert {entry.name!r} offers embeddings, so it must be of kind openai and offer "
            "nothing else: write another [[expert]] for what else is at its url."
        )


def check_writers(experts: Iterable[ExpertEntry], models: Collection[str] | None = None) -> None:
    """Raises: ConfigError where documents are to be written from by who cannot.

    Args:
        experts: all of a configuration.
        models: further experts, by name; None where it is not known which there are.
    """
    entries: Mapping[str, Any] = {entry.name: entry for entry in experts}
    for entry in entries.values():
        if entry.kind != "documents" or entry.writer in ("", _OWN):
            continue
        writer = entries.get(entry.writer)
        if writer is not None and (writer.kind == "documents" or "embeddings" in writer.offers):
            what = "itself" if writer is entry else f"{writer.name}, which writes no answers"
            raise ConfigError(
                f"The writer of expert {entry.name!r} is {what}: name a model, or leave it out to quote."
            )
        if writer is None and models is not None and entry.writer not in models:
            known = ", ".join(sorted({*models, *(e.name for e in entries.values() if e.kind != "documents")}))
            raise ConfigError(
                f"The writer of expert {entry.name!r} is {entry.writer!r:.80}, which is no expert here. "
                f"There are: {known or 'none'}; or write auto, or leave it out to quote."
            )
