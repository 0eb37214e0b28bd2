"""What `experts add` keeps: names that are free, and entries in the program's own file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyminds.cli.relearn import welcome
from manyminds.cli.settings import read

if TYPE_CHECKING:
    from manyminds.config import Config, ExpertEntry

__all__ = ["amend", "enter", "need_free", "shown", "told"]


def amend(file: str | None, fields: dict[str, Any]) -> "ExpertEntry":
    """Says more of an expert that was added before, or something else. Raises: ConfigError."""
    from manyminds.config import ADDED, entries
    from manyminds.config.added import edited

    config = read(file, {})
    with edited(config.home) as tables:
        [place] = [i for i, table in enumerate(tables) if table["name"] == fields["name"]]
        tables[place] = {**tables[place], **fields}
        [entry] = entries([tables[place]], config.home / ADDED, {}).values()
    return entry


def enter(file: str | None, fields: dict[str, Any]) -> "ExpertEntry":
    """Keeps an expert. Raises: ConfigError, where its name is taken or an entry is wrong."""
    from manyminds.config import ADDED, entries
    from manyminds.config.added import edited

    config = read(file, {})
    with edited(config.home) as tables:
        need_free(fields["name"], read(file, {}))  # as it is now
        tables.append(fields)
        welcome(file, fields["name"])
    place = config.home / ADDED
    [entry] = entries([fields], place, {}).values()
    return entry


def need_free(name: str, config: "Config") -> None:
    """Raises: ConfigError where callers would mean somebody else by that name."""
    from manyminds import catalog
    from manyminds.config import POLICIES
    from manyminds.errors import ConfigError

    holder = ""
    if name in POLICIES:
        holder = "a policy"
    elif name in catalog.load() or name == "manyminds":
        holder = "manyminds itself" if name == "manyminds" else "a model of the catalogue"
    elif name in {own.name for own in catalog.own(config.home)}:
        holder = "a file that `manyminds pull --gguf` added"
    elif name in {entry.name for entry in config.experts}:
        holder = f"an expert of {config.origins[f'expert.{name}.name'].removeprefix('file ')}"
    elif name in config.aliases:
        holder = f"an alias in {config.file}"
    if holder:
        raise ConfigError(f"The name {name!r} is taken, by {holder}: give another, with --name NAME.")


def shown(entry: "ExpertEntry", config: "Config") -> dict[str, Any]:
    """What was added, as JSON."""
    from manyminds.config import ADDED

    fields = {name: getattr(entry, name) for name in ("name", "kind", "url", "model", "path", "source")}
    return fields | {"file": str(config.home / ADDED)}


def told(entry: "ExpertEntry", home: Path) -> str:
    """What was added, in words."""
    from manyminds.config import ADDED

    answers = entry.path if entry.kind in ("local", "documents") else f"{entry.model} at {entry.url}"
    return f"{entry.name} was added: {answers}. It is kept in {home / ADDED}."
