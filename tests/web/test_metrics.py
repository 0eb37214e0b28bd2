import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from manyminds.ledger import Backlog
from manyminds.types import PanelEntry, Report, Status, Usage
from manyminds.web.metrics import Metrics, Network, render_all, retired
from tests.changed import replace

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
POLICIES = ("auto", "max", "cheap", "fast", "pass")
EXPERTS = ("a", "b", "c")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

Labels = frozenset[tuple[str, str]]


def made(
    experts: Container[str] = EXPERTS,
    backlog: Callable[[], Backlog] = lambda: Backlog(0, 0, 0, None),
    circuits: Callable[[], Mapping[str, bool]] = dict,
    version: str = "1.2.3",
) -> Metrics:
    return Metrics(version, (CHAT, EMBEDDINGS), POLICIES, experts, backlog, circuits)


def entry(expert: str = "a", status: Status = "ok", **more: Any) -> PanelEntry:
    plain = PanelEntry(expert, f"of {expert}", 1.0, "its answer", 0.9, 0.3, 1.2, 0.001, status)
    return replace(plain, **more)


def report(*panel: PanelEntry, cache: str = "off") -> Report:
    return Report("r1", "auto", "vote", panel, None, None, (), math.fsum(e.cost_usd for e in panel), 0, cache)


def samples(raw: bytes) -> dict[str, dict[Labels, float]]:
    """Every sample by its name and labels, as Prometheus' own parser reads them; each comes once."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(raw.decode()):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def value(raw: bytes, name: str, **labels: str) -> float:
    return samples(raw)[f"manyminds_{name}"][frozenset(labels.items())]


# --- what is counted, against a plain count of it ---------------------------------------------------


@dataclass(frozen=True)
class Reply:
    endpoint: str
    policy: str
    status: int | str
    seconds: float
    first_byte_s: float | None
    added_s: float | None
    report: Report | None
    usages: Sequence[Usage]


def taught(replies: Sequence[Reply]) -> Metrics:
    metrics = made()
    for reply in replies:
        metrics.observe(
            reply.endpoint, reply.policy, reply.status, reply.seconds, reply.first_byte_s, reply.added_s
        )
        if reply.report is not None:
            metrics.observe_panel(reply.report, reply.usages)
    return metrics


times = st.one_of(st.sampled_from(SECONDS), st.floats(0, 1e6), st.decimals("0", "200", places=7).map(float))
entries = st.builds(
    PanelEntry,
    st.sampled_from(EXPERTS),
    st.sampled_from(["alice", "bob"]),
    st.just(0.5),
    st.just("its answer"),
    st.none(),
    st.none() | times,
    times,
    st.decimals("0", "2", places=9).map(float),
    st.sampled_from(["ok", "failed", "cut", "late", "cancelled"]),
)
reports = st.builds(
    lambda panel, cache: report(*panel, cache=cache),
    st.lists(entries, max_size=5),
    st.sampled_from(["off", "hit", "miss"]),
)
replies = st.lists(
    st.builds(
        Reply,
        st.sampled_from([CHAT, EMBEDDINGS]),
        st.sampled_from(POLICIES),
        st.sampled_from([200, 404, 503, "cut", "gone"]),
        times,
        st.none() | times,
        st.none() | times,
        st.none() | reports,
        st.lists(st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9)), max_size=5),
    ),
    max_size=12,
)


@given(replies, st.data())
def test_neither_the_order_nor_the_process_of_requests_shows(seen: list[Reply], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(seen))
    cut = data.draw(st.integers(0, len(seen)))
    whole = taught(seen).render()
    assert taught(shuffled).render() == whole
    parts = [taught(shuffled[:cut]).snapshot(), taught(shuffled[cut:]).snapshot()]
    assert render_all(parts) == render_all(parts[::-1]) == whole


@given(replies)
def test_counters_are_what_was_added(seen: list[Reply]) -> None:
    found = samples(taught(seen).render())
    asked = [r for r in seen if r.report is not None]
    expected = Counter((r.endpoint, r.policy, str(r.status)) for r in seen)
    assert found.get("manyminds_requests_total", {}) == {
        frozenset({("endpoint", e), ("policy", p), ("status", s)}): n for (e, p, s), n in expected.items()
    }
    panels = [e for r in asked if r.report and r.report.cache != "hit" for e in r.report.panel]
    ended = Counter((e.expert, e.status) for e in panels)
    calls = {labels: n for labels, n in found.get("manyminds_expert_calls_total", {}).items() if n}
    assert calls == {frozenset({("expert", e), ("status", s)}): n for (e, s), n in ended.items()}
    tokens = found["manyminds_tokens_total"]
    used = [usage for r in asked for usage in r.usages]
    assert tokens[frozenset({("direction", "in")})] == sum(u.prompt_tokens for u in used)
    assert tokens[frozenset({("direction", "out")})] == sum(u.completion_tokens for u in used)
    cache = Counter(r.report.cache for r in asked if r.report)
    assert Counter({dict(k)["result"]: n for k, n in found["manyminds_cache_total"].items() if n}) == cache
    for source in {e.source for e in panels}:
        cost = math.fsum(e.cost_usd for e in panels if e.source == source)
        shown = found["manyminds_cost_usd_total"][frozenset({("source", source)})]
        assert math.isclose(shown, cost, rel_tol=1e-12, abs_tol=len(panels) * 1e-12)


def check_histogram(raw: bytes, name: str, values: Sequence[float], **labels: str) -> None:
    found, plain = samples(raw), frozenset(labels.items())
    buckets = {
        float(dict(key)["le"]): n
        for key, n in found[f"manyminds_{name}_bucket"].items()
        if key - {("le", dict(key)["le"])} == plain
    }
    assert len(buckets) > 5
    assert buckets == {bound: sum(v <= bound for v in values) for bound in buckets}
    assert found[f"manyminds_{name}_count"][plain] == buckets[math.inf] == len(values)
    exact = float(sum(map(Fraction, values)))
    assert math.isclose(
        found[f"manyminds_{name}_sum"][plain], exact, rel_tol=1e-12, abs_tol=len(values) * 1e-9
    )


@given(replies)
def test_histograms_are_of_what_was_added(seen: list[Reply]) -> None:
    raw = taught(seen).render()
    panels = [r.report.panel if r.report.cache != "hit" else () for r in seen if r.report]
    for endpoint in (CHAT, EMBEDDINGS):
        within = [r.seconds for r in seen if r.endpoint == endpoint]
        check_histogram(raw, "request_seconds", within, endpoint=endpoint)
    check_histogram(raw, "added_seconds", [r.added_s for r in seen if r.added_s is not None])
    check_histogram(raw, "first_byte_seconds", [r.first_byte_s for r in seen if r.first_byte_s is not None])
    check_histogram(raw, "panel_width", [len({e.expert for e in panel}) for panel in panels])
    for expert in {e.expert for panel in panels for e in panel}:
        first = [e.ttft_s for p in panels for e in p if e.expert == expert and e.ttft_s is not None]
        check_histogram(raw, "expert_first_token_seconds", first, expert=expert)


# --- the format ------------------------------------------------------------------------------------


def test_every_family_is_there_from_the_start_with_type_and_help() -> None:
    families = {f.name: f for f in text_string_to_metric_families(made().render().decode())}
    assert {name.removeprefix("manyminds_"): family.type for name, family in families.items()} == {
        "requests": "counter",
        "request_seconds": "histogram",
        "added_seconds": "histogram",
        "first_byte_seconds": "histogram",
        "panel_width": "histogram",
        "cost_usd": "counter",
        "tokens": "counter",
        "expert_calls": "counter",
        "expert_first_token_seconds": "histogram",
        "cache": "counter",
        "in_flight": "gauge",
        "ledger_queued": "gauge",
        "ledger_dropped": "gauge",
        "expert_circuit_open": "gauge",
        "nodes": "gauge",
        "peer_answers": "counter",
        "network_refused": "counter",
        "build_info": "gauge",
    }
    assert all(family.documentation.endswith(".") for family in families.values())


def test_what_other_nodes_did_is_shown_by_their_names_here() -> None:
    network = Network(2, {("sage", "kept"): 3, ("left long ago", "unsigned"): 1}, {"frame": 4, "card old": 5})
    metrics = Metrics("1", [CHAT], ["auto"], {"sage"}, lambda: Backlog(0, 0, 0, None), dict, lambda: network)
    lines = metrics.render().decode().splitlines()
    assert "manyminds_nodes 2" in lines
    assert 'manyminds_peer_answers_total{peer="sage",deed="kept"} 3' in lines
    assert 'manyminds_peer_answers_total{peer="other",deed="unsigned"} 1' in lines
    assert 'manyminds_network_refused_total{what="card old"} 5' in lines


def test_a_bucket_includes_its_bound() -> None:
    metrics = made()
    metrics.observe(CHAT, "auto", 200, 0.1)
    lines = metrics.render().decode().splitlines()
    assert f'manyminds_request_seconds_bucket{{endpoint="{CHAT}",le="0.05"}} 0' in lines
    assert f'manyminds_request_seconds_bucket{{endpoint="{CHAT}",le="0.1"}} 1' in lines
    assert f'manyminds_request_seconds_bucket{{endpoint="{CHAT}",le="+Inf"}} 1' in lines
    assert f'manyminds_request_seconds_sum{{endpoint="{CHAT}"}} 0.1' in lines
    assert f'manyminds_request_seconds_count{{endpoint="{CHAT}"}} 1' in lines


def test_labels_are_escaped_as_the_format_says() -> None:
    metrics = made(experts={'a\\"\n'})
    metrics.observe_panel(report(entry('a\\"\n')), [])
    line = 'manyminds_expert_calls_total{expert="a\\\\\\"\\n",status="ok"} 1'
    assert line in metrics.render().decode().split("\n")


def test_what_utf_8_cannot_say_is_shown_all_the_same() -> None:
    metrics = made(experts={"\ud800", "\\ud800"})
    metrics.observe_panel(report(entry("\ud800"), entry("\\ud800")), [])
    assert value(metrics.render(), "expert_calls_total", expert="\\ud800", status="ok") == 2
    assert render_all([metrics.snapshot()]) == metrics.render()


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5), st.text(), st.text())
def test_no_name_breaks_the_output(names: list[tuple[str, str]], version: str, odd: str) -> None:
    experts = {expert for expert, _ in names}
    metrics = made(experts, circuits=lambda: dict.fromkeys(experts, True), version=version)
    plain = made(["x"], circuits=lambda: {"x": True})
    for expert, source in names:
        metrics.observe_panel(report(entry(expert, source=source)), [])
    plain.observe_panel(report(entry("x", source="x")), [])
    metrics.observe(odd, odd, odd, 0.1)
    plain.observe("x", "x", "x", 0.1)
    found = samples(metrics.render())
    assert found.keys() == samples(plain.render()).keys()
    shown = {dict(labels)["expert"] for labels in found["manyminds_expert_calls_total"]}
    assert shown == experts
    assert {dict(labels)["source"] for labels in found["manyminds_cost_usd_total"]} == {s for _, s in names}
    assert found["manyminds_build_info"] == {frozenset({("version", version)}): 1}
    lines = metrics.render().decode().split("\n")
    assert lines.pop() == ""
    assert all(line.startswith(("# ", "manyminds_")) for line in lines)


def test_no_text_of_answers_or_errors_is_shown() -> None:
    metrics = made()
    metrics.observe_panel(report(entry(answer="SECRET", error="SECRET")), [Usage()])
    assert b"SECRET" not in metrics.render() + metrics.snapshot()


# --- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ((CHAT, "max", 200), (CHAT, "max", "200")),
        ((CHAT, "pass", "cut"), (CHAT, "pass", "cut")),
        ((CHAT, "a", "gone"), (CHAT, "pass", "gone")),
        ((CHAT, "", 400), (CHAT, "none", "400")),
        ((CHAT, "gpt-9", 404), (CHAT, "other", "404")),
        (("/wp-admin", "auto", 404), ("other", "auto", "404")),
        ((CHAT, "auto", 20), (CHAT, "auto", "other")),
        ((CHAT, "auto", "200"), (CHAT, "auto", "other")),
    ],
)
def test_only_known_labels_are_shown(given_: tuple[str, str, int | str], shown: tuple[str, str, str]) -> None:
    metrics = made()
    metrics.observe(*given_, 0.1)
    metrics.observe(*given_, 0.1)
    endpoint, policy, status = shown
    raw = metrics.render()
    assert value(raw, "requests_total", endpoint=endpoint, policy=policy, status=status) == 2
    assert sum(samples(raw)["manyminds_requests_total"].values()) == 2
    assert value(raw, "request_seconds_count", endpoint=endpoint) == 2


def test_unknown_experts_their_sources_and_odd_caches_are_others() -> None:
    metrics = made(circuits=lambda: {"stranger": True, "x": True, "a": False})
    metrics.observe_panel(report(entry("stranger", cost_usd=0.25), cache="odd"), [])
    raw = metrics.render()
    assert value(raw, "expert_calls_total", expert="other", status="ok") == 1
    assert value(raw, "cost_usd_total", source="other") == 0.25
    assert value(raw, "cache_total", result="other") == 1
    assert value(raw, "expert_circuit_open", expert="other") == 2
    assert value(raw, "expert_circuit_open", expert="a") == 0
    assert b"stranger" not in raw


def test_an_expert_that_joins_later_has_its_name() -> None:
    experts = {"a"}
    metrics = made(experts)
    metrics.observe_panel(report(entry("b")), [])
    experts.add("b")
    metrics.observe_panel(report(entry("b")), [])
    raw = metrics.render()
    assert value(raw, "expert_calls_total", expert="b", status="ok") == 1
    assert value(raw, "expert_calls_total", expert="other", status="ok") == 1


def test_more_experts_and_kinds_of_reply_than_it_tells_apart_are_others() -> None:
    names = [f"e{number}" for number in range(1000)]
    metrics = made(names, circuits=lambda: dict.fromkeys(names, True))
    for name in names:
        metrics.observe_panel(report(entry(name)), [])
    for status in range(100, 600):
        for policy in POLICIES:
            metrics.observe(CHAT, policy, status, 0.1)
    raw = metrics.render()
    found = samples(raw)
    assert value(raw, "expert_calls_total", expert="other", status="ok") == 800
    assert value(raw, "requests_total", endpoint="other", policy="other", status="other") == 1500
    assert value(raw, "expert_circuit_open", expert="other") == 800
    for name, total in {
        "expert_calls_total": 1000,
        "requests_total": 2500,
        "expert_circuit_open": 1000,
    }.items():
        assert sum(found[f"manyminds_{name}"].values()) == total
    assert max(map(len, found.values())) < 200 * 20


@pytest.mark.parametrize("cost_usd", [math.nan, math.inf, -1.0, 1e300])
def test_a_cost_that_cannot_be_is_not_counted(cost_usd: float) -> None:
    metrics = made()
    metrics.observe_panel(report(entry(cost_usd=0.5), entry(cost_usd=cost_usd)), [])
    assert value(metrics.render(), "cost_usd_total", source="of a") == 0.5


def test_an_answer_that_came_after_the_reply_began_added_nothing() -> None:
    metrics = made()
    metrics.observe(CHAT, "auto", 200, 0.1, 0.05, -0.01)
    assert value(metrics.render(), "added_seconds_sum") == 0
    assert value(metrics.render(), "added_seconds_count") == 1


def test_an_experts_first_failure_can_be_seen_as_a_rise() -> None:
    metrics = made()
    metrics.observe_panel(report(entry("a")), [])
    assert value(metrics.render(), "expert_calls_total", expert="a", status="failed") == 0


# --- gauges, and several processes -----------------------------------------------------------------


def test_gauges_are_of_the_moment() -> None:
    backlog, circuits = [Backlog(3, 10, 1, None)], {"a": True, "b": False}
    metrics = made(backlog=lambda: backlog[0], circuits=lambda: circuits)
    metrics.in_flight += 2
    raw = metrics.render()
    assert value(raw, "in_flight") == 2
    assert (value(raw, "ledger_queued"), value(raw, "ledger_dropped")) == (3, 1)
    assert value(raw, "expert_circuit_open", expert="a") == 1
    metrics.in_flight -= 1
    backlog[0], circuits["a"] = Backlog(0, 13, 1, None), False
    raw = metrics.render()
    assert value(raw, "in_flight") == 1
    assert value(raw, "ledger_queued") == 0
    assert value(raw, "expert_circuit_open", expert="a") == 0


def test_gauges_of_processes_add_up_but_for_the_version() -> None:
    one = made(backlog=lambda: Backlog(3, 0, 1, None), circuits=lambda: {"a": True})
    two = made(backlog=lambda: Backlog(4, 0, 0, None), circuits=lambda: {"a": True, "b": False})
    one.in_flight, two.in_flight = 5, 6
    raw = render_all([one.snapshot(), two.snapshot()])
    assert value(raw, "in_flight") == 11
    assert (value(raw, "ledger_queued"), value(raw, "ledger_dropped")) == (7, 1)
    assert value(raw, "expert_circuit_open", expert="a") == 2
    assert value(raw, "expert_circuit_open", expert="b") == 0
    assert value(raw, "build_info", version="1.2.3") == 1


def test_of_who_has_ended_the_counts_remain_and_the_gauges_go() -> None:
    ended = made(backlog=lambda: Backlog(3, 0, 1, None), circuits=lambda: {"a": True})
    ended.in_flight = 5
    ended.observe("/v1/chat/completions", "auto", 200, 0.5)
    ended.observe_panel(report(entry(cost_usd=0.25)), [Usage(1, 2)])
    lives = made(backlog=lambda: Backlog(4, 0, 0, None), circuits=lambda: {"a": False})
    lives.in_flight = 6
    remains = retired([retired([ended.snapshot()]), retired([ended.snapshot()])])
    raw = render_all([remains, lives.snapshot()])
    assert value(raw, "requests_total", endpoint="/v1/chat/completions", policy="auto", status="200") == 2
    assert value(raw, "cost_usd_total", source="of a") == 0.5
    assert value(raw, "in_flight") == 6
    assert (value(raw, "ledger_queued"), value(raw, "ledger_dropped")) == (4, 0)
    assert value(raw, "expert_circuit_open", expert="a") == 0
    assert value(raw, "build_info", version="1.2.3") == 1


def test_sums_do_not_overflow() -> None:
    metrics = made()
    for _ in range(30):
        metrics.observe_panel(report(entry(cost_usd=1e9)), [Usage(10**18, 10**19)])
    raw = render_all([metrics.snapshot(), metrics.snapshot()])
    assert value(raw, "cost_usd_total", source="of a") == 6e10
    assert value(raw, "tokens_total", direction="out") == 6e20


@pytest.mark.parametrize("snapshot", [b"", b"{", b"[]", b'{"requests_total": [[1, 2]]}'])
def test_what_is_no_snapshot_is_refused(snapshot: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        render_all([snapshot])


def test_another_versions_snapshot_is_refused() -> None:
    here = made().snapshot()
    with pytest.raises(KeyError, match="renamed"):
        render_all([here, b'{"renamed": [[[], [1]]]}'])
    with pytest.raises(ValueError, match="zip"):
        render_all([here, b'{"panel_width": [[[], [1, 2]]]}'])
