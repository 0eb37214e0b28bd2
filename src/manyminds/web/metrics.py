"""Figures of this node for Prometheus, in its text format 0.0.4. Knows no prompt, no answer and no key.

Written here instead of taken from `prometheus_client`, because each figure is counted on the path of every
request: that library takes a lock and some microseconds for each, all of ours take less than two together.
Sums are whole numbers (nanoseconds, millionths of a millionth of a dollar): neither the order of requests
nor how they were spread over processes changes what is shown.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, get_args

import msgspec

from manyminds.types import Report, Status, Usage

if TYPE_CHECKING:
    from manyminds.ledger import Backlog

__all__ = ["CONTENT_TYPE", "Metrics", "Network", "render_all", "retired"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Metrics.render` and `render_all` give."""

_OTHER: Final = "other"
_NAMES: Final = 200  # pairs of expert and source that are told apart
_REPLIES: Final = 1000  # as many kinds of reply
_ENDS: Final = frozenset({"cut", "gone"})  # of a reply, but for a status
_CACHE: Final = ("off", "hit", "miss")
_MOST_USD: Final = 1e9
_NANO: Final = 10**9
_PICO: Final = 10**12

_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
)
_ADDED: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_EXPERTS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)

_Labels: TypeAlias = tuple[str, ...]
_Figures: TypeAlias = dict[str, dict[_Labels, list[int]]]
"""By family and the values of its labels: a number, or a histogram's buckets and then its sum."""

_Snapshot: TypeAlias = dict[str, list[tuple[_Labels, list[int]]]]


class Network(NamedTuple):
    """How it goes with other nodes.

    Attributes:
        nodes: that can be asked.
        deeds: answers, by peer and whether they counted; see `experts.peer.Deed`.
        refused: cards, asks and frames that were not believed, by what and why.
    """

    nodes: int
    deeds: Mapping[tuple[str, str], int]
    refused: Mapping[str, int]


class _Family(NamedTuple):
    name: str
    kind: str  # counter, gauge, histogram; info is a gauge that is always 1
    labels: _Labels
    help: str
    bounds: tuple[float, ...] = ()
    unit: int = 1  # so many make one of what is shown


_FAMILIES: Final = (
    _Family(
        "requests_total",
        "counter",
        ("endpoint", "policy", "status"),
        "Requests by HTTP status; cut is a stream that broke off, gone a client that left.",
    ),
    _Family("request_seconds", "histogram", ("endpoint",), "Time of a request.", _SECONDS, _NANO),
    _Family(
        "added_seconds", "histogram", (), "Of it, after the slowest answer that was needed.", _ADDED, _NANO
    ),
    _Family("first_byte_seconds", "histogram", (), "Time to the reply's first byte.", _SECONDS, _NANO),
    _Family("panel_width", "histogram", (), "Experts asked for one answer.", _EXPERTS),
    _Family("cost_usd_total", "counter", ("source",), "What calls cost, in US dollars.", unit=_PICO),
    _Family("tokens_total", "counter", ("direction",), "Tokens in prompts (in) and answers (out)."),
    _Family("expert_calls_total", "counter", ("expert", "status"), "Calls of experts, by how they ended."),
    _Family(
        "expert_first_token_seconds", "histogram", ("expert",), "Time to the first token.", _SECONDS, _NANO
    ),
    _Family("cache_total", "counter", ("result",), "Answers, by what the cache did for them."),
    _Family("in_flight", "gauge", (), "Requests being answered."),
    _Family("ledger_queued", "gauge", (), "Requests that are not yet in the ledger's database."),
    _Family("ledger_dropped", "gauge", (), "Requests since the start that the ledger lost."),
    _Family(
        "expert_circuit_open", "gauge", ("expert",), "Processes that leave the expert alone for a while."
    ),
    _Family("nodes", "gauge", (), "Other nodes that can be asked."),
    _Family(
        "peer_answers_total", "counter", ("peer", "deed"), "Answers of other nodes, by whether they counted."
    ),
    _Family(
        "network_refused_total", "counter", ("what",), "What came from other nodes and was not believed."
    ),
    _Family("build_info", "info", ("version",), "Always 1."),
)


class _Histogram:
    """Times of the loop's clock, which are finite and not negative."""

    __slots__ = ("_bounds", "_counts", "_sum_ns")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum_ns = 0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum_ns += round(seconds * 1e9)

    @property
    def numbers(self) -> list[int]:
        return [*self._counts, self._sum_ns]


class _Calls:
    """What came of the calls of one expert, on behalf of one source."""

    __slots__ = ("cost_pico_usd", "ended", "first_token")

    def __init__(self) -> None:
        self.ended: dict[Status, int] = dict.fromkeys(get_args(Status), 0)  # a rise from 0 can be seen
        self.cost_pico_usd = 0
        self.first_token = _Histogram(_SECONDS)


class Metrics:
    """Counts requests, and says so in Prometheus' words. All in one thread, that of the event loop.

    Labels are bounded: what is not among `endpoints`, `policies` and `experts` is shown as `other`, and so
    are experts after the first 200 and kinds of reply after the first 1,000.

    Args:
        version: the package's.
        endpoints: paths or names that `observe` is given.
        policies: that a request may name, and `pass`.
        experts: by name; may change while it counts.
        backlog: how the ledger's writing goes.
        circuits: of each expert, whether it is left alone for a while.
        network: how it goes with other nodes.
    """

    in_flight: int
    """Requests being answered: whoever serves sets it before it renders."""

    def __init__(
        self,
        version: str,
        endpoints: Collection[str],
        policies: Collection[str],
        experts: Container[str],
        backlog: Callable[[], "Backlog"],
        circuits: Callable[[], Mapping[str, bool]],
        network: Callable[[], Network] = lambda: Network(0, {}, {}),
    ) -> None:
        self._version = version
        self._policies = frozenset(policies)
        self._experts = experts
        self._backlog = backlog
        self._circuits = circuits
        self._network = network
        self.in_flight = 0
        self._requests: dict[tuple[str, str, int | str], int] = {}
        self._seconds = {endpoint: _Histogram(_SECONDS) for endpoint in (*endpoints, _OTHER)}
        self._added = _Histogram(_ADDED)
        self._first_byte = _Histogram(_SECONDS)
        self._widths: dict[int, int] = {}
        self._calls: dict[tuple[str, str], _Calls] = {}
        self._tokens_in = self._tokens_out = 0
        self._cache = dict.fromkeys(_CACHE, 0)

    # --- counting: the path of every request ---

    def observe(
        self,
        endpoint: str,
        policy: str,
        status: int | str,
        seconds: float,
        first_byte_s: float | None = None,
        added_s: float | None = None,
    ) -> None:
        """Counts a reply, once it has ended.

        Args:
            endpoint: one of `endpoints`.
            policy: the report's, or where there is none, what the request named; an expert's name is `pass`.
            status: HTTP's, `cut` of a stream that broke off, or `gone` where the client left.
            seconds: from the request to the reply's end.
            first_byte_s: until its first byte, if there was one.
            added_s: `seconds` less the time until the slowest answer that was needed, if there was one.
        """
        try:
            self._requests[endpoint, policy, status] += 1
        except KeyError:
            self._count(endpoint, policy, status)
        try:
            self._seconds[endpoint].observe(seconds)
        except KeyError:
            self._seconds[_OTHER].observe(seconds)
        if first_byte_s is not None:
            self._first_byte.observe(first_byte_s)
        if added_s is not None:
            self._added.observe(added_s if added_s > 0 else 0.0)

    def observe_panel(self, report: Report, usages: Iterable[Usage]) -> None:
        """Counts what was asked of experts, also for a request that failed or whose client left.

        `usages` are those of all calls; their costs are the report's.
        """
        panel = report.panel if report.cache != "hit" else ()  # those were asked for another request
        for entry in panel:
            try:
                calls = self._calls[entry.expert, entry.source]
            except KeyError:
                calls = self._calls_of(entry.expert, entry.source)
            calls.ended[entry.status] += 1
            if entry.ttft_s is not None:
                calls.first_token.observe(entry.ttft_s)
            if 0.0 < entry.cost_usd <= _MOST_USD:
                calls.cost_pico_usd += round(entry.cost_usd * 1e12)
        width = 1 if len(panel) == 1 else len({entry.expert for entry in panel})
        self._widths[width] = self._widths.get(width, 0) + 1
        for usage in usages:
            self._tokens_in += usage.prompt_tokens
            self._tokens_out += usage.completion_tokens
        try:
            self._cache[report.cache] += 1
        except KeyError:
            self._cache[_OTHER] = self._cache.get(_OTHER, 0) + 1

    def _count(self, endpoint: str, policy: str, status: int | str) -> None:
        """What is new: known by a name of the lists, else by `other`."""
        known = status in _ENDS if isinstance(status, str) else 100 <= status <= 599
        key = (
            endpoint if endpoint in self._seconds else _OTHER,
            self._policy(policy),
            status if known else _OTHER,
        )
        if key not in self._requests and len(self._requests) >= _REPLIES:
            key = (_OTHER, _OTHER, _OTHER)
        self._requests[key] = self._requests.get(key, 0) + 1

    def _policy(self, named: str) -> str:
        if named in self._policies:
            return named
        return "pass" if named in self._experts else _OTHER if named else "none"

    def _calls_of(self, expert: str, source: str) -> _Calls:
        full = len(self._calls) >= _NAMES
        key = (_OTHER, _OTHER) if full or expert not in self._experts else (expert, source)
        return self._calls.setdefault(key, _Calls())

    # --- showing ---

    def render(self) -> bytes:
        """All figures, as `CONTENT_TYPE`."""
        return _text(self._figures())

    def snapshot(self) -> bytes:
        """All figures, for `render_all` in whichever process shows them."""
        return _snapshot(self._figures())

    def _figures(self) -> _Figures:
        found: _Figures = {family.name: {} for family in _FAMILIES}
        for (endpoint, policy, status), count in self._requests.items():
            _add(found["requests_total"], (endpoint, policy, str(status)), [count])
        for endpoint, histogram in self._seconds.items():
            _add(found["request_seconds"], (endpoint,), histogram.numbers)
        _add(found["added_seconds"], (), self._added.numbers)
        _add(found["first_byte_seconds"], (), self._first_byte.numbers)
        _add(found["panel_width"], (), _buckets(_EXPERTS, self._widths))
        for (expert, source), calls in self._calls.items():
            _add(found["cost_usd_total"], (source,), [calls.cost_pico_usd])
            _add(found["expert_first_token_seconds"], (expert,), calls.first_token.numbers)
            for status, count in calls.ended.items():
                _add(found["expert_calls_total"], (expert, status), [count])
        _add(found["tokens_total"], ("in",), [self._tokens_in])
        _add(found["tokens_total"], ("out",), [self._tokens_out])
        for result, count in self._cache.items():
            _add(found["cache_total"], (result,), [count])
        self._gauge(found)
        network = self._network()
        _add(found["nodes"], (), [network.nodes])
        for (peer, deed), count in network.deeds.items():
            known = peer in self._experts and len(found["peer_answers_total"]) < _NAMES
            _add(found["peer_answers_total"], (peer if known else _OTHER, deed), [count])
        for what, count in network.refused.items():
            _add(found["network_refused_total"], (what,), [count])
        return found

    def _gauge(self, found: _Figures) -> None:
        """What is so just now."""
        backlog = self._backlog()
        _add(found["in_flight"], (), [self.in_flight])
        _add(found["ledger_queued"], (), [backlog.queued])
        _add(found["ledger_dropped"], (), [backlog.dropped])
        circuits = found["expert_circuit_open"]
        for name, is_open in self._circuits().items():
            known = name in self._experts and len(circuits) < _NAMES
            _add(circuits, (name if known else _OTHER,), [int(is_open)])
        _add(found["build_info"], (self._version,), [1])


def render_all(snapshots: Iterable[bytes]) -> bytes:
    """The figures of several processes of the same version as those of one: everything is added up.

    Raises: msgspec.DecodeError, KeyError, ValueError: where one is no snapshot, or another version's.
    """
    return _text(_sum(snapshots))


def retired(snapshots: Iterable[bytes]) -> bytes:
    """What remains of processes that have ended, as one snapshot: what they counted, not how they were.

    Without it a sum would fall with each of them. Raises: as `render_all`.
    """
    found = _sum(snapshots)
    for family in _FAMILIES:
        if family.kind in ("gauge", "info"):
            found[family.name].clear()
    return _snapshot(found)


def _sum(snapshots: Iterable[bytes]) -> _Figures:
    found: _Figures = {family.name: {} for family in _FAMILIES}
    for snapshot in snapshots:
        for name, samples in msgspec.json.decode(snapshot, type=_Snapshot).items():
            for labels, numbers in samples:
                _add(found[name], labels, numbers)
    return found


def _snapshot(figures: _Figures) -> bytes:
    return msgspec.json.encode({name: list(samples.items()) for name, samples in figures.items()})


def _buckets(bounds: tuple[float, ...], counts: Mapping[int, int]) -> list[int]:
    """A histogram's numbers, from how often each value came."""
    buckets = [0] * (len(bounds) + 1)
    for value, count in counts.items():
        buckets[bisect_left(bounds, value)] += count
    return [*buckets, sum(value * count for value, count in counts.items())]


def _add(samples: dict[_Labels, list[int]], labels: _Labels, numbers: list[int]) -> None:
    """Adds to what there is. What UTF-8 cannot say in a label becomes an escape of Python's."""
    labels = tuple(label.encode("utf-8", "backslashreplace").decode() for label in labels)
    before = samples.setdefault(labels, [0] * len(numbers))
    samples[labels] = [a + b for a, b in zip(before, numbers, strict=True)]


# --- the format ------------------------------------------------------------------------------------
# https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format


def _text(figures: _Figures) -> bytes:
    lines: list[str] = []
    for family in _FAMILIES:
        name, kind = f"manyminds_{family.name}", family.kind
        lines.append(f"# HELP {name} {family.help}\n# TYPE {name} {'gauge' if kind == 'info' else kind}\n")
        for values, numbers in sorted(figures[family.name].items()):
            labels = [
                f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, values, strict=True)
            ]
            if kind == "histogram":
                lines += _histogram(name, labels, family, numbers)
            else:
                lines.append(_line(name, labels, 1 if kind == "info" else numbers[0], family.unit))
    return "".join(lines).encode()


def _histogram(name: str, labels: list[str], family: _Family, numbers: list[int]) -> list[str]:
    *counts, total = numbers
    lines, below = [], 0
    for bound, count in zip((*map(repr, family.bounds), "+Inf"), counts, strict=True):
        below += count
        lines.append(_line(f"{name}_bucket", [*labels, f'le="{bound}"'], below))
    return [*lines, _line(f"{name}_sum", labels, total, family.unit), _line(f"{name}_count", labels, below)]


def _line(name: str, labels: list[str], number: int, unit: int = 1) -> str:
    shown = f"{{{','.join(labels)}}}" if labels else ""
    return f"{name}{shown} {number if unit == 1 else repr(number / unit)}\n"


def _escaped(value: str) -> str:
    """A label's value between its quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
