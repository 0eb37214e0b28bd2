"""What is kept of every request that has ended: figures, a line of the log, and spans."""

from collections.abc import Sequence

from manyminds.private import PRIVATE
from manyminds.report import waited_s
from manyminds.router.policy import DIRECT, POLICIES
from manyminds.types import Answer, Query, Report
from manyminds.web.answering import Reply
from manyminds.web.metrics import Metrics
from manyminds.web.requestlog import RequestLog
from manyminds.web.spans import Spans

__all__ = ["Observer"]


class Observer:
    """Told by the edge of replies, and by the gateway of panels."""

    def __init__(self, metrics: Metrics, lines: RequestLog, spans: Spans | None = None) -> None:
        self._metrics = metrics
        self._lines = lines
        self._spans = spans

    def seen(self, path: str, reply: Reply) -> None:
        """See `answering.Seen`."""
        report, query, last = reply.last.report, reply.query, reply.last
        waited = waited_s(report) if report is not None else None
        added = None if waited is None else reply.seconds - waited
        if report is not None:
            policy = report.policy
        elif query is not None:
            known = query.model in (*POLICIES, PRIVATE)
            policy = query.limits.policy or (query.model if known else DIRECT)
        else:
            policy = ""
        self._metrics.observe(path, policy, reply.status, reply.seconds, reply.first_byte_s, added)
        self._lines.add(
            reply.request_id,
            reply.key.id if reply.key else None,
            path,
            query.model if query else None,
            reply.status,
            reply.seconds,
            reply.first_byte_s,
            report,
            last.usage,
        )
        if self._spans is not None:
            self._spans.seen(path, reply, *reply.trace)

    def record(
        self, report: Report, query: Query, answers: Sequence[Answer], text: str, status: str, seconds: float
    ) -> None:
        """See `gateway.Record`."""
        self._metrics.observe_panel(report, [answer.usage for answer in answers])
        if self._spans is not None:
            self._spans.record(report, answers)
