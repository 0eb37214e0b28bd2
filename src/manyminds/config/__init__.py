"""What a person may set: one file, the environment, flags. Every value remembers where it came from.

Besides that file, the experts that commands added are read: see `added`. Knows none of the parts that the
values are for, and reads no key: `key_env` only names a variable.
"""

import math
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, get_origin, get_type_hints
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from manyminds.config.keys import (
    POLICIES,
    Cache,
    ExpertEntry,
    Ledger,
    Local,
    Network,
    PeerEntry,
    Policy,
    Private,
    Server,
    reference,
    sections,
)
from manyminds.config.kinds import check_kind, check_writers
from manyminds.errors import ConfigError

__all__ = [
    "ADDED",
    "POLICIES",
    "Cache",
    "Config",
    "ExpertEntry",
    "Ledger",
    "Local",
    "Network",
    "PeerEntry",
    "Policy",
    "Private",
    "Server",
    "Setting",
    "check_writers",
    "convert",
    "describe",
    "entries",
    "home_of",
    "load",
    "mask",
    "peers",
    "reference",
    "tables",
]

ADDED: Final = "experts.toml"
"""In the home: experts and peers that commands were told of. The program's own file, unlike the other."""

_PREFIX: Final = "MANYMINDS_"
_KUBERNETES: Final = ("MANYMINDS_SERVICE_", "MANYMINDS_PORT")  # set in pods beside a Service named manyminds
_SQLITE: Final = "sqlite:///"
_MODELS: Final = 8  # that one request may name


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All values. Paths in it are absolute, also that of a file in `ledger.url`."""

    home: Path
    file: Path | None = None
    files: tuple[Path, ...] = ()
    """All that were read, or would be if they were there."""
    server: Server = Server()
    local: Local = Local()
    policy: Policy = Policy()
    ledger: Ledger = Ledger()
    cache: Cache = Cache()
    network: Network = Network()
    private: Private = Private()
    experts: tuple[ExpertEntry, ...] = ()
    peers: tuple[PeerEntry, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}
    """Under `[aliases]`: other names, or patterns of such, and the models that they stand for, in order."""
    origins: dict[str, str] = {}
    """For each key, such as `server.port`: default, file PATH, environment NAME, or flag."""

    @property
    def is_networked(self) -> bool:
        """Whether it has anything to do with other nodes."""
        network = self.network
        return bool(network.join or network.listen or network.url or self.peers)

    @property
    def own(self) -> tuple[Path, ...]:
        """Folders and files of the program's own, that are there or may be: nobody's documents."""
        told = [Path(file) for file in (self.server.tls_key, self.network.zenoh) if file]
        ledger = self.ledger.url
        if ledger.startswith(_SQLITE):
            told += [Path(f"{ledger.removeprefix(_SQLITE)}{end}") for end in ("", "-journal", "-shm", "-wal")]
        return (self.home, *self.files, *told)


class Setting(msgspec.Struct, frozen=True):
    """One value as `manyminds config` shows it, without secrets."""

    key: str
    value: Any
    origin: str


# --- reading ---------------------------------------------------------------------------------------


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Reads everything. Flag beats environment, which beats the file, which beats the default.

    Args:
        path: the file to read; None looks for `manyminds.toml` here, then in the home folder.
        environ: `MANYMINDS_HOME` and `MANYMINDS_<SECTION>_<KEY>` count; an empty one is unset.
        flags: values by key, such as `server.port`; None is unset.

    Raises: ConfigError, for the first thing that is wrong, with what to do.
    """
    home = home_of(environ)
    places = _places(path, home)
    file = places[0] if path else next(filter(os.path.exists, places), None)
    document = _read(file) if file else {}
    origins = dict.fromkeys(_settable(), "default")
    origins["home"] = f"environment {_PREFIX}HOME" if environ.get(f"{_PREFIX}HOME") else "default"
    experts = entries(document.get("expert", []), file, origins)
    experts |= entries(tables(home / ADDED), home / ADDED, origins, experts)
    check_writers(experts.values())
    listed = peers(document.get("peer", []), file, origins, experts)
    listed |= peers(tables(home / ADDED, "peer"), home / ADDED, origins, [*experts, *listed])
    aliases = _aliases(document.get("aliases", {}), file, origins)
    secret = document.get("network", {})
    named = secret.get("secret_env") if isinstance(secret, dict) else None
    known = (f"{_PREFIX}HOME", *(entry.key_env for entry in experts.values()), str(named or ""))
    values: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    layers = (*_from_file(document, file), *_from_environment(environ, known), *_from_flags(flags))
    for key, value, origin in layers:
        section, _, name = key.partition(".")
        values[section][name] = convert(key, value, origin)
        origins[key] = origin
    network = _joined(Network(**values["network"]), listed, file)
    return Config(
        home=home,
        file=file,
        files=(*places, home / ADDED),
        server=_secured(Server(**values["server"]), file),
        local=Local(**values["local"]),
        policy=Policy(**values["policy"]),
        ledger=_locate(Ledger(**values["ledger"]), home),
        cache=Cache(**values["cache"]),
        network=network,
        private=Private(**values["private"]),
        peers=_distinct(listed),
        experts=tuple(experts.values()),
        aliases=aliases,
        origins=origins,
    )


def home_of(environ: Mapping[str, str]) -> Path:
    """The home folder. Raises: ConfigError."""
    return _absolute(environ.get(f"{_PREFIX}HOME") or "~/.manyminds", Path.cwd(), f"{_PREFIX}HOME")


def _absolute(path: str | Path, base: Path, key: str) -> Path:
    try:
        return Path(os.path.abspath(base / Path(path).expanduser()))
    except RuntimeError as error:
        raise ConfigError(f"{key} begins with a ~ that leads nowhere: write a full path instead.") from error


def _places(path: Path | None, home: Path) -> tuple[Path, ...]:
    """Where the file may be; the first that is there counts."""
    if path is not None:
        return (_absolute(path, Path.cwd(), "--config"),)
    return Path.cwd() / "manyminds.toml", home / "manyminds.toml"


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8-sig")  # editors on Windows write a mark
        return tomllib.loads(f"{text}\n")  # else an error in the last line has no line number
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.") from error


_Layer = Iterable[tuple[str, Any, str]]
"""Key, value as written, origin."""


def _from_file(document: Mapping[str, Any], file: Path | None) -> _Layer:
    for section, table in document.items():
        if section in ("expert", "peer", "aliases"):
            continue
        if section not in sections():
            if not isinstance(table, dict | list):
                _reject_key("", section, file)
            _reject(section, [*sections(), "expert", "peer", "aliases"], f"section in {file}")
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section} is a section: write [{section}] and its keys below.")
        for name, value in table.items():
            if name not in sections()[section].__struct_fields__:
                _reject_key(section, name, file)
            yield f"{section}.{name}", value, f"file {file}"


def _from_environment(environ: Mapping[str, str], known: Collection[str]) -> _Layer:
    keys = {_PREFIX + key.replace(".", "_").upper(): key for key in _settable()}
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in known or name.startswith(_KUBERNETES):
            continue
        if name not in keys:
            _reject(name, [*keys, *known], "environment variable")
        if environ[name]:
            yield keys[name], environ[name], f"environment {name}"


def _from_flags(flags: Mapping[str, Any]) -> _Layer:
    for key, value in flags.items():
        if key not in _settable():
            _reject(key, _settable(), "flag")
        if value is not None:
            yield key, value, "flag"


def convert(key: str, value: Any, origin: str) -> Any:
    """The value in its type; outside a file text may spell a number or truth value. Raises: ConfigError."""
    section, _, name = key.partition(".")
    struct = {"expert": ExpertEntry, "peer": PeerEntry, **sections()}[section]
    hint = get_type_hints(struct, include_extras=True)[name]
    many = get_origin(getattr(hint, "__origin__", hint)) is tuple  # written with commas outside a file
    if many and isinstance(value, str) and not origin.startswith("file"):
        value = [word.strip() for word in value.split(",") if word.strip()]
    try:
        converted = msgspec.convert(value, hint, strict=origin.startswith("file"))
        if isinstance(converted, float) and not math.isfinite(converted):
            raise msgspec.ValidationError("Expected a finite number")
    except msgspec.ValidationError as error:
        shown = "" if name == "key_env" else f", not {_brief(value)}"  # it may be the key itself
        wrong = str(error)[0].lower() + str(error)[1:]
        about = next(meta.description for meta in hint.__metadata__ if meta.description)
        raise ConfigError(f"{key} ({origin}): {wrong}{shown}. {about}") from None
    return converted


def _secured(server: Server, file: Path | None) -> Server:
    """With absolute paths. Raises: ConfigError where one of certificate and key is without the other."""
    if not server.tls_cert and not server.tls_key:
        return server
    if not server.tls_cert or not server.tls_key:
        there, lacking = ("tls_cert", "tls_key") if server.tls_cert else ("tls_key", "tls_cert")
        raise ConfigError(f"server.{there} is set and server.{lacking} is not: HTTPS takes both.")
    base = file.parent if file else Path.cwd()
    cert, key = (
        str(_absolute(getattr(server, name), base, f"server.{name}")) for name in ("tls_cert", "tls_key")
    )
    return msgspec.structs.replace(server, tls_cert=cert, tls_key=key)


def _locate(ledger: Ledger, home: Path) -> Ledger:
    if not ledger.url.startswith(_SQLITE):
        return ledger
    file = _absolute(ledger.url.removeprefix(_SQLITE), home, "ledger.url")
    return msgspec.structs.replace(ledger, url=f"{_SQLITE}{file}")


# --- experts ---------------------------------------------------------------------------------------


def tables(file: Path, kind: str = "expert") -> Any:
    """What `[[expert]]`, or `[[peer]]`, says in the program's own file. Raises: ConfigError."""
    document = _read(file) if os.path.exists(file) else {}
    if strange := document.keys() - {"expert", "peer"}:
        raise ConfigError(
            f"{file} holds experts and peers only, not {_clip(min(strange))}: settings belong in "
            "manyminds.toml."
        )
    return document.get(kind, [])


def entries(
    said: Any, file: Path | None, origins: dict[str, str], others: Collection[str] = ()
) -> dict[str, ExpertEntry]:
    """All `[[expert]]` by name, complete; adds the origin of each of their values to `origins`.

    Args:
        said: what the file says of them.
        file: which says so.
        origins: by key, such as `expert.NAME.url`.
        others: names that are taken.

    Raises: ConfigError, for the first thing that is wrong.
    """
    if not isinstance(said, list) or not all(isinstance(table, dict) for table in said):
        raise ConfigError(f"{file}: write each expert as [[expert]], with two brackets.")
    experts: dict[str, ExpertEntry] = {}
    for number, table in enumerate(said, 1):
        for key in table:
            if key not in ExpertEntry.__struct_fields__:
                _reject_key("expert", key, file)
        if "name" not in table:
            raise ConfigError(f'{file}: [[expert]] number {number} has no name: add name = "...".')
        origin = f"file {file}, number {number}"
        entry = ExpertEntry(**{key: convert(f"expert.{key}", table[key], origin) for key in table})
        if entry.name in POLICIES:
            raise ConfigError(f"{file}: {entry.name!r} is a policy, so no expert can have that name.")
        if entry.name in experts:
            raise ConfigError(f"{file}: two experts are named {entry.name!r}: rename one.")
        if entry.name in others:
            raise ConfigError(
                f"Two experts are named {entry.name!r}, one of which was added: rename the other, or run "
                f"`manyminds experts remove {entry.name}`."
            )
        check_kind(entry, table, file)
        if entry.kind == "documents" and "accuracy" not in table:
            entry = msgspec.structs.replace(entry, accuracy=0.0)  # of anything but them it knows nothing
        experts[entry.name] = _complete(entry, file)
        for field in ExpertEntry.__struct_fields__:
            origins[f"expert.{entry.name}.{field}"] = f"file {file}" if field in table else "default"
    return experts


def peers(
    said: Any, file: Path | None, origins: dict[str, str], others: Collection[str] = ()
) -> dict[str, PeerEntry]:
    """All `[[peer]]` by name. Arguments and errors as of `entries`."""
    if not isinstance(said, list) or not all(isinstance(table, dict) for table in said):
        raise ConfigError(f"{file}: write each peer as [[peer]], with two brackets.")
    found: dict[str, PeerEntry] = {}
    for number, table in enumerate(said, 1):
        for key in table:
            if key not in PeerEntry.__struct_fields__:
                _reject_key("peer", key, file)
        for needed in ("name", "id"):
            if needed not in table:
                raise ConfigError(f'{file}: [[peer]] number {number} has no {needed}: add {needed} = "...".')
        origin = f"file {file}, number {number}"
        entry = PeerEntry(**{key: convert(f"peer.{key}", table[key], origin) for key in table})
        if entry.name in POLICIES:
            raise ConfigError(f"{file}: {entry.name!r} is a policy, so no peer can have that name.")
        if entry.name in found or entry.name in others:
            raise ConfigError(f"{file}: the name of peer {entry.name!r} is taken: give it another.")
        if entry.url and not _is_web(entry.url):
            raise ConfigError(
                f"{file}: url of peer {entry.name!r} must be like https://HOST, not {_brief(entry.url)}."
            )
        found[entry.name] = entry
        for field in PeerEntry.__struct_fields__:
            origins[f"peer.{entry.name}.{field}"] = f"file {file}" if field in table else "default"
    return found


def _distinct(listed: Mapping[str, PeerEntry]) -> tuple[PeerEntry, ...]:
    """Raises: ConfigError where a node is listed twice."""
    by_id: dict[str, str] = {}
    for entry in listed.values():
        if (other := by_id.setdefault(entry.id, entry.name)) != entry.name:
            raise ConfigError(f"The peers {other!r} and {entry.name!r} are the same node: keep one of them.")
    return tuple(listed.values())


def _joined(network: Network, listed: Mapping[str, PeerEntry], file: Path | None) -> Network:
    """With absolute paths. Raises: ConfigError where an address is none, or a peer has part of no budget."""
    own = next((entry.name for entry in listed.values() if entry.budget_nats is not None), None)
    if own is not None and network.budget_nats is None:
        raise ConfigError(
            f"The peer {own!r} has budget_nats, and network.budget_nats is not set, by which nodes know that "
            "they must keep to one: set it, too."
        )
    if network.url and not _is_web(network.url):
        raise ConfigError(f"network.url must be like https://HOST, not {_brief(network.url)}.")
    if not network.zenoh:
        return network
    base = file.parent if file else Path.cwd()
    return msgspec.structs.replace(network, zenoh=str(_absolute(network.zenoh, base, "network.zenoh")))


def _complete(entry: ExpertEntry, file: Path | None) -> ExpertEntry:
    """The entry with its defaults filled in, its path absolute and its url checked."""
    if entry.url and not _is_web(entry.url):
        raise ConfigError(
            f"{file}: url of expert {entry.name!r} must be like http://HOST:PORT/v1, not {_brief(entry.url)}."
        )
    base = file.parent if file else Path.cwd()
    return msgspec.structs.replace(
        entry,
        model=entry.model or entry.name,
        source=entry.source or entry.name,
        path=str(_absolute(entry.path, base, f"path of expert {entry.name!r}")) if entry.path else "",
    )


def _is_web(url: str) -> bool:
    parts = _split(url)
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


# --- aliases ---------------------------------------------------------------------------------------


def _aliases(table: Any, file: Path | None, origins: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """What `[aliases]` says; adds the origin of each to `origins`."""
    if not isinstance(table, dict):
        raise ConfigError(f'{file}: write [aliases], and below it lines like "gpt-*" = "auto".')
    found = {}
    for name, value in table.items():
        targets = [value] if isinstance(value, str) else value
        names = isinstance(targets, list) and all(isinstance(target, str) for target in targets)
        if not names or not 1 <= len(targets) <= _MODELS or not name:
            raise ConfigError(
                f"{file}: aliases.{_clip(name)} must be a model or a list of 1 to {_MODELS} of them, not "
                f"{_brief(value)}."
            )
        if name in POLICIES:
            raise ConfigError(f"{file}: {name!r} is a policy, so it stands for nothing else.")
        found[name] = tuple(targets)
        origins[f"aliases.{name}"] = f"file {file}"
    return found


# --- showing ---------------------------------------------------------------------------------------


def describe(config: Config) -> list[Setting]:
    """Every value with its origin, secrets masked, in the order of the file."""
    shown = [Setting("home", str(config.home), config.origins.get("home", "default"))]
    parts: list[tuple[str, msgspec.Struct]] = [(name, getattr(config, name)) for name in sections()]
    parts += [(f"expert.{entry.name}", entry) for entry in config.experts]
    parts += [(f"peer.{entry.name}", entry) for entry in config.peers]
    for prefix, part in parts:
        for field in part.__struct_fields__:
            value = getattr(part, field)
            value = mask(value) if isinstance(value, str) else value
            shown.append(
                Setting(f"{prefix}.{field}", value, config.origins.get(f"{prefix}.{field}", "default"))
            )
    for name, targets in config.aliases.items():
        shown.append(Setting(f"aliases.{name}", list(targets), config.origins[f"aliases.{name}"]))
    return shown


def mask(text: str) -> str:
    """A URL without its password, its user where that is all, or its query's values; else `text`."""
    parts = _split(text)
    if "://" not in text:
        return text
    if parts is None or (":" in parts.netloc and "@" not in parts.netloc and "@" in text):
        return "***"  # nothing is known of where its secrets are: a password may have a / or a # in it
    netloc, query = parts.netloc, parts.query
    if "@" in netloc:
        user, colon, _ = netloc.rpartition("@")[0].partition(":")
        netloc = (f"{user}:***" if colon else "***") + "@" + netloc.rpartition("@")[2]
    if query:
        pairs = parse_qsl(query, keep_blank_values=True)
        named = "=" in query and bool(pairs)
        query = urlencode([(name, "***") for name, _ in pairs], safe="*") if named else "***"
    if (netloc, query) == (parts.netloc, parts.query):
        return text
    return urlunsplit(parts._replace(netloc=netloc, query=query))


# --- words for what is wrong -----------------------------------------------------------------------


def _reject_key(section: str, key: str, file: Path | None) -> NoReturn:
    keys = [known.split(".") for known in reference()]
    where = f"key under {_head(section)} in {file}" if section else f"key in {file}"
    if re.search(r"(^|[_-]|api)(key|token|secret|password)$", key.lower()):
        raise ConfigError(
            f"Unknown {where}: {_clip(key)}. A secret is never written here: put it into an environment "
            'variable and name that, as in key_env = "MY_KEY".'
        )
    elsewhere = [_head(home) for home, name in keys if name == key]
    if elsewhere:
        raise ConfigError(f"Unknown {where}: {key}. It belongs under {' or '.join(elsewhere)}.")
    _reject(key, [name for home, name in keys if home == section] or list(sections()), where)


def _head(section: str) -> str:
    return f"[[{section}]]" if section in ("expert", "peer") else f"[{section}]"


def _reject(name: str, valid: Iterable[str], what: str) -> NoReturn:
    import difflib

    options = list(valid)
    nearest = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"There are: {', '.join(options)}."
    raise ConfigError(f"Unknown {what}: {_clip(name)}. {hint}")


def _brief(value: Any) -> str:
    return _clip(repr(mask(value)) if isinstance(value, str) else repr(value))


def _clip(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _split(url: str) -> SplitResult | None:
    """None where it is no URL: a bad port, a bracket too few, blanks within."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if any(c.isspace() for c in url) else parts


def _settable() -> list[str]:
    """Keys that the environment and flags may set: all but those of experts."""
    return [f"{section}.{name}" for section, part in sections().items() for name in part.__struct_fields__]
