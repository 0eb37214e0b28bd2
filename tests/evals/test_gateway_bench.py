"""What measures the gateway: the load generator against servers that are known, and its arithmetic."""

import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import canonical
from manyminds.errors import ManymindsError
from manyminds.evals.speed import cases
from manyminds.evals.speed.machine import cpu_s, divide_cores, memory_mb, on_cores, running, tree
from manyminds.evals.speed.rounds import spread
from manyminds.evals.speed.targets import Model
from manyminds.evals.speed.tools import Load, Sample, Target, Tools, Upstream, build
from manyminds.types import Message, Query
from tests.e2e.node import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures on Linux only")

ASKED = b'{"model":"%s","messages":[{"role":"user","content":"#0000000000"}]}'
STREAMED = b'{"model":"%s","stream":true,"messages":[{"role":"user","content":"#0000000000"}]}'


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: install gcc or clang")
    return build(tmp_path_factory.mktemp("tools"), divide_cores(os.sched_getaffinity(0)))


@pytest.fixture
def upstream(tools: Tools) -> Iterator[Upstream]:
    with tools.upstream() as running_upstream:
        yield running_upstream


def ask(tools: Tools, upstream: Upstream, load: Load, seconds: float = 0.05) -> Sample:
    sample, said = tools.ask(Target("direct", upstream.port), load, seconds, 0.02)
    assert (sample.errors, said) == (0, "")
    return sample


# --- the load generator and the upstream -----------------------------------------------------------


def test_every_request_reaches_the_upstream_once(tools: Tools, upstream: Upstream) -> None:
    sample = ask(tools, upstream, Load(ASKED % b"mock", 8))
    assert upstream.asked() == {"mock": sample.total}
    assert 0 < sample.answered <= sample.total
    assert sample.latency_us is not None
    assert 0 < sample.latency_us[0] <= sample.latency_us[1]
    assert (sample.chunks, sample.first_us, sample.delay_us, sample.chunks_per_s) == (0, None, None, None)


def test_a_stream_is_counted_and_timed_by_its_chunks(tools: Tools, upstream: Upstream) -> None:
    sample = ask(tools, upstream, Load(STREAMED % b"mock-n5-p1000", 1))
    assert upstream.asked() == {"mock-n5-p1000": sample.total}
    assert abs(sample.chunks - 5 * sample.answered) < 2 * 5  # one stream may be cut by either end of the time
    assert sample.delay_us is not None
    assert sample.first_us is not None
    assert sample.latency_us is not None
    assert sample.delay_us[0] > 0
    assert sample.first_us[0] <= sample.latency_us[0]
    assert sample.chunks_per_s is not None
    assert sample.chunks_per_s[0] > 0


def test_an_answer_is_waited_for_however_short_the_time(tools: Tools, upstream: Upstream) -> None:
    sample = ask(tools, upstream, Load(ASKED % b"mock-d60-o1", 1), seconds=0.01)
    assert sample.answered >= 1
    assert sample.latency_us is not None
    assert sample.latency_us[0] >= 60_000


def test_no_more_is_sent_than_a_rate_allows(tools: Tools, upstream: Upstream) -> None:
    sample, _ = tools.ask(Target("direct", upstream.port), Load(ASKED % b"mock", 4, per_s=50), 0.3, 0)
    assert 0 < sample.total <= 50 * sample.seconds + 5
    assert sample.errors == 0


def test_the_upstream_answers_as_its_models_name_says(upstream: Upstream) -> None:
    def post(body: bytes) -> str:
        with socket.create_connection(("127.0.0.1", upstream.port)) as connection:
            head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body[:9])
            connection.sendall(body[9:])
            text = b""
            while not text.endswith((b"0\r\n\r\n", b"}")):
                text += connection.recv(65536)
        return text.decode()

    assert json.loads(post(ASKED % b"mock-o2").partition("\r\n\r\n")[2])["choices"][0]["message"][
        "content"
    ] == ("The answer is C.")
    drafts = [post(STREAMED % b"mock-n3-x%d" % i) for i in (4, 5)]
    assert ["Expert 4 says" in draft for draft in drafts] == [True, False]
    assert ["Expert 5 says" in draft for draft in drafts] == [False, True]
    assert post(STREAMED % b"mock-n3").count('"content":" @') == 3


# --- servers that do not keep the protocol ---------------------------------------------------------


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that reads one request a connection, answers and closes; its port."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(5)
                try:
                    if connection.recv(65536):
                        answer(connection)
                except OSError:  # the generator has gone
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            thread.join()


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def chunked(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


EVENT = b'data: {"choices":[{"delta":{"content": " @%d"}}]}\n\n' % 10**12
REPORT = b'data: {"choices":[{"finish_reason":"stop"}],"manyminds":{"answer":" @%d @%d"}}\n\n' % (
    10**12,
    10**12,
)


def load_of(tools: Tools, answer: Callable[[socket.socket], None]) -> tuple[Sample, str]:
    with serving(answer) as port:
        return tools.ask(Target("odd", port), Load(STREAMED % b"mock", 1), 0.01, 0)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 500 X\r\ncontent-length: 4\r\nconnection: close\r\n\r\noops", "status 500: oops"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", "status 200: {}"),
        (STREAM + chunked(EVENT) + b"0\r\n\r\n", "not answered as asked"),
        (STREAM + chunked(EVENT), "closed before its answer was complete"),
        (b"", "closed before its answer was complete"),
    ],
    ids=["status", "no_answer", "no_end", "cut", "nothing"],
)
def test_what_is_no_whole_answer_is_an_error(tools: Tools, reply: bytes, said: str) -> None:
    sample, complaint = load_of(tools, lambda connection: connection.sendall(reply))
    assert sample.errors == sample.total > 0
    assert sample.answered == 0
    assert said in complaint


def test_a_stream_may_come_in_any_pieces(tools: Tools) -> None:
    stream = STREAM + chunked(EVENT[:20]) + chunked(EVENT[20:] + EVENT) + chunked(REPORT + b"data: [DO")
    stream += chunked(b"NE]\n\n") + b"0\r\n\r\n"

    def dribble(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(stream)):
            connection.sendall(stream[i : i + 1])

    sample, said = load_of(tools, dribble)
    assert (sample.errors, said) == (0, "")
    assert sample.answered >= 1
    assert sample.chunks <= 2 * sample.total, "what a report repeats is no chunk"
    assert sample.chunks >= 2 * (sample.answered - 1)


def test_a_target_that_is_not_there_is_one_sentence(tools: Tools) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ManymindsError, match="gone could not be measured: cannot connect"):
        tools.ask(Target("gone", port), Load(ASKED % b"mock", 1), 0.01, 0)


# --- what it takes ---------------------------------------------------------------------------------


def test_it_is_compiled_from_a_checkout_with_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = divide_cores({0})
    with pytest.raises(ManymindsError, match="run this from a checkout"):
        build(tmp_path, cores, sources=tmp_path)
    (tmp_path / "upstream.c").write_text("this is no C")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ManymindsError, match="needs a C compiler"):
        build(tmp_path, cores, sources=tmp_path)
    monkeypatch.delenv("CC")
    if shutil.which("cc"):
        with pytest.raises(ManymindsError, match=r"upstream\.c cannot be compiled"):
            build(tmp_path, cores, sources=tmp_path)


def test_a_process_ends_with_all_that_it_started(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 600 & echo up; wait"]
    core = {min(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    with running(command, core, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        pids = tree(process.pid)
        assert len(pids) == 2
        assert all(os.sched_getaffinity(pid) == core for pid in pids)
        assert memory_mb(process.pid) > 0
        assert cpu_s(process.pid) >= 0
    assert os.sched_getaffinity(0) == before
    assert tree(process.pid) == []
    assert wait_until(lambda: not any(map(_lives, pids)))


def _lives(pid: int) -> bool:
    """A killed child of nobody may still wait for its new parent to hear of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_cpu_time_counts_children_too(tmp_path: Path) -> None:
    spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; sleep 600"
    with running(["sh", "-c", f"({spin}) & wait"], os.sched_getaffinity(0), tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        child = tree(process.pid)[1]
        assert cpu_s(process.pid) >= cpu_s(child) > 0


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_one_core_is_for_what_is_measured(cores: set[int]) -> None:
    divided = divide_cores(cores)
    assert len(divided.measured) == 1
    assert divided.measured | divided.rest == cores
    assert divided.apart == (len(cores) > 1)


def test_cores_are_given_back_after_an_error() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyboardInterrupt), on_cores({min(before)}):
        assert os.sched_getaffinity(0) == {min(before)}
        raise KeyboardInterrupt
    assert os.sched_getaffinity(0) == before


@given(st.lists(st.none() | st.floats(-1e6, 1e6)))
def test_a_figure_is_a_median_within_its_range(values: list[float | None]) -> None:
    found = spread(values)
    there = [value for value in values if value is not None]
    assert (found is None) == (not there)
    if found:
        assert found["min"] <= found["median"] <= found["max"]
        assert abs(found["min"] - min(there)) <= 1e-4
        assert abs(found["max"] - max(there)) <= 1e-4
        assert found == spread(list(reversed(values)))


@given(st.floats(0, 1e3), st.integers(0, 10**6))
def test_cpu_time_is_shared_by_what_was_answered(seconds: float, count: int) -> None:
    sample = Sample(1.0, count, 0, count, 0, None, None, None, None)
    assert sample.per(count) is None
    share = msgspec.structs.replace(sample, cpu_s=seconds).per(count)
    assert share is None if count == 0 else share == pytest.approx(seconds / count * 1e6)


# --- what is asked ---------------------------------------------------------------------------------


def test_every_body_is_json_with_one_number_that_counts_up() -> None:
    _, slowest = cases.drafters()
    for case in (*cases.PASSES, *cases.FANOUT, cases.VOTER, cases.FUSE, cases.FUSER, slowest):
        assert case.load.body.count(b"#0000000000") == 1, case.name
        assert json.loads(case.load.body).get("stream", False) == case.stream, case.name
    assert {json.loads(case.load.body)["model"] for case in cases.PASSES} == {
        m.name for m in cases.PASS_MODELS
    }
    (long,) = (case for case in cases.PASSES if case.name == "pass_64_33kb")
    assert 32_000 < len(long.load.body) < 34_000


def test_the_panels_are_of_different_models() -> None:
    drafters, slowest = cases.drafters()
    for models, count in ((cases.voters(), 8), (drafters, 51)):
        assert len({m.name for m in models}) == len({m.upstream for m in models}) == count
    drafting: list[Model] = [m for m in drafters if m.price_usd_per_m < 1]
    assert len(drafting) == 50
    assert json.loads(slowest.load.body)["model"] == drafting[-1].upstream


def test_the_question_to_the_eight_is_one_with_options() -> None:
    for case in cases.FANOUT:
        messages = json.loads(case.load.body)["messages"]
        task = canonical.task(Query(tuple(Message(m["role"], m["content"]) for m in messages)))
        assert (task.kind, task.options[1]) == ("option", "blue")
