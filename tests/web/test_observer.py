"""What is kept of requests that have ended: figures and lines, by the edge as it is served."""

import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from manyminds.errors import UnavailableError
from manyminds.experts.scripted import Script
from manyminds.ledger import Backlog
from manyminds.router.policy import DIRECT, POLICIES
from manyminds.types import Query, Report
from manyminds.web.app import ENDPOINTS, App, Edge
from manyminds.web.metrics import Metrics
from manyminds.web.observer import Observer
from manyminds.web.requestlog import RequestLog
from tests.clock import run
from tests.network import Records, network, scripted
from tests.web.client import call

CHAT = "/v1/chat/completions"


class Both(Records):
    """A ledger, and the observer beside it."""

    observer: Observer

    def record(self, report: Report, query: Query, answers: Any, *rest: Any) -> None:
        super().record(report, query, answers, *rest)
        self.observer.record(report, query, answers, *rest)


def told(*requests: tuple[dict[str, Any], dict[str, Any]]) -> tuple[dict[Any, float], list[str]]:
    """Samples by name and labels, and lines, after these requests and how each was sent."""
    experts = [
        scripted("a", Script(text="It is 43.", per_chunk_s=1.0)),
        scripted("down", Script(fail_before=UnavailableError("down"))),
        scripted("cutter", Script(text="one two three", cut_after=2)),
    ]
    lines: list[str] = []
    figures = Metrics(
        "1",
        ENDPOINTS,
        (*POLICIES, DIRECT),
        {expert.card.name for expert in experts},
        lambda: Backlog(0, 0, 0, None),
        dict,
    )
    log = RequestLog(lines.append)
    records = Both()
    records.observer = Observer(figures, log)
    gateway = network(*experts, records=records)

    async def render() -> bytes:
        return figures.render()

    seen = records.observer.seen
    app = App(Edge(gateway, POLICIES, list, lambda: True, 10_000, seen=seen, metrics=render))

    async def story() -> bytes:
        for fields, how in requests:
            message = {"messages": [{"role": "user", "content": "SECRET?"}]}
            await call(app, "POST", CHAT, json.dumps(message | fields).encode(), **how)
        log.close()
        return (await call(app, "GET", "/metrics")).body

    text = run(story()).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert "SECRET" not in text + "".join(lines)
    return samples, "".join(lines).splitlines()


def test_every_way_a_request_ends_is_counted_and_logged() -> None:
    samples, lines = told(
        ({"model": "a"}, {}),
        ({"model": "a", "stream": True}, {}),
        ({"model": "down"}, {}),
        ({"model": "cutter", "stream": True}, {}),
        ({"model": "a", "stream": True}, {"gone_after_s": 1.5}),
        ({"model": 7}, {}),
    )
    found = {key[2:]: count for key, count in samples.items() if key[0] == "manyminds_requests_total"}
    assert found == {
        (DIRECT, "200"): 2,
        (DIRECT, "503"): 1,
        (DIRECT, "cut"): 1,
        (DIRECT, "gone"): 1,
        ("none", "400"): 1,
    }
    assert samples["manyminds_request_seconds_count", CHAT] == 6
    assert samples["manyminds_expert_calls_total", "a", "ok"] == 2
    assert samples["manyminds_expert_calls_total", "a", "cancelled"] == 1
    assert samples["manyminds_expert_calls_total", "down", "failed"] == 1
    assert samples["manyminds_expert_calls_total", "cutter", "cut"] == 1
    statuses = [line.partition(" status=")[2].partition(" ")[0] for line in lines]
    assert statuses == ["200", "200", "503", "cut", "gone", "400"]


def test_panels_are_counted_by_their_width() -> None:
    samples, _ = told(({"model": "max"}, {}))
    assert samples[("manyminds_panel_width_sum",)] == 3
    assert samples["manyminds_requests_total", CHAT, "max", "200"] == 1
    assert samples[("manyminds_added_seconds_count",)] == 1
