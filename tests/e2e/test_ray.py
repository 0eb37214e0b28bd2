"""A model in two replicas of Ray Serve behind one expert of a node, by the configuration of docs/cluster.md.

This Ray is the test's own: its ports, folder and token are nobody else's. It listens on loopback, but for a
port of each replica that Ray cannot be told where to bind.
"""

import importlib.util
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from manyminds import catalog
from tests.e2e.node import cpu_s, served, wait_until
from tests.e2e.test_network import free_port
from tests.pulled import HOME, need

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'ray[serve]'"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(300),  # Ray takes a minute to start where others want the cores, too
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
MODEL = "smollm2-135m"
START_S = 120.0
REPLICA = "ray::ServeRepli"  # as much as the system keeps of its name


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return str(found)


def typed(beginning: str) -> list[str]:
    """The words of the page's command that begins so, with the interpreter's own programs."""
    (line,) = [line for line in block("console").splitlines() if line.startswith(beginning)]
    program, *words = shlex.split(line, comments=True)
    return [str(Path(sys.executable).with_name(program)), *words]


class Ray:
    """Ray and in it the page's application, until `end`."""

    def __init__(self, folder: Path) -> None:
        need(MODEL)
        self._folder = folder
        self.port, head = free_port(), free_port()
        self._env = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "examples"), os.getenv("PYTHONPATH")))),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own word for: on loopback only
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        alone = "--node-ip-address 127.0.0.1 --num-cpus 2 --object-store-memory 80000000 --block"
        alone += (
            f" --include-dashboard false --include-log-monitor false --ray-client-server-port {free_port()}"
        )
        alone += " --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0"
        command = [word.replace("6379", str(head)) for word in typed("ray start --head")]
        self._head = self._started("head", *command, *alone.split())
        self._serve: subprocess.Popen[bytes] | None = None
        try:
            assert wait_until(lambda: "runtime started" in self.said() or self._ended(), START_S)
            where = f"127.0.0.1:{head}"
            command = [word.replace("HEAD:6379", where) for word in typed("serve run")]
            self._serve = self._started("serve", *command)
            assert wait_until(lambda: self._is_up() or self._ended(), START_S)
            assert not self._ended(), self.said()
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def processes(self) -> dict[int, str]:
        """Those of this Ray by process id, with what they call themselves."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, rest = path.read_text().partition("(")[2].rpartition(") ")
                state, _, _, session = rest.split()[:4]
                if int(session) in self._sessions and state != "Z":
                    found[int(path.parent.name)] = name
        return found

    def replicas(self) -> set[int]:
        return {pid for pid, name in self.processes().items() if name == REPLICA}

    def answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/models", timeout=10) as reply:
            return bool(reply.status == 200)
        return False

    def _is_up(self) -> bool:
        return len(self.replicas()) == 2 and self.answers()

    def end(self) -> None:
        """As its user would, with Ctrl-C; what is begun at Ray's head ends with that."""
        try:
            assert self._serve is not None
            for process in (self._serve, self._head):
                process.send_signal(signal.SIGINT)
                process.wait(timeout=60)
            assert wait_until(lambda: not self.processes()), self.processes()
        finally:
            self.kill()

    def kill(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in (self._head, self._serve):
            if process is not None:
                process.wait(timeout=20)

    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    @property
    def _sessions(self) -> set[int]:
        return {process.pid for process in (self._head, self._serve) if process is not None}

    def _ended(self) -> bool:
        return any(p is not None and p.poll() is not None for p in (self._head, self._serve))

    def _started(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        path = str(catalog.path_of(HOME, catalog.find(MODEL).files[0]))
        settings = block("yaml").replace("port: 8100", f"port: {self.port}")
        settings = settings.replace("/srv/models/smollm2-135m.gguf", path)
        (self._folder / "serve.yaml").write_text(settings)
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )


@pytest.fixture
def ray() -> Iterator[Ray]:
    with TemporaryDirectory(prefix="ray-") as folder:  # Ray's sockets need a short path
        started = Ray(Path(folder))
        try:
            yield started
        finally:
            started.kill()


def post(url: str, **more: Any) -> tuple[int, bytes]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    data = json.dumps(body | more).encode()
    asking = urllib.request.Request(f"{url}/chat/completions", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asking, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_replica_that_dies_is_not_missed(ray: Ray, tmp_path: Path) -> None:
    status, body = post(ray.url, messages="hello")
    assert status == 400
    assert json.loads(body)["error"]["type"] == "invalid_request_error"

    (tmp_path / "manyminds.toml").write_text(block("toml").replace(":8100/", f":{ray.port}/"))
    own = {"MANYMINDS_LEDGER_URL": "sqlite:///ledger.db", "MANYMINDS_SERVER_KEYS": "auto"}
    with served(tmp_path, env=own, tier="none") as node, ThreadPoolExecutor(4) as pool:
        status, body = post(node.url, max_tokens=12)
        whole = json.loads(body)
        assert (status, whole["manyminds"]["panel"][0]["status"]) == (200, "ok")
        assert 0 < whole["usage"]["completion_tokens"] <= 12 < whole["usage"]["prompt_tokens"]
        assert whole["choices"][0]["message"]["content"]

        status, body = post(node.url, max_tokens=12, stream=True, stream_options={"include_usage": True})
        events = [json.loads(data) for data in re.findall(rb"^data: (\{.*)$", body, re.MULTILINE)]
        assert sum(bool(e["choices"] and e["choices"][0]["delta"].get("content")) for e in events) > 1
        assert [e["usage"]["completion_tokens"] for e in events if e.get("usage")]
        assert body.rstrip().endswith(b"data: [DONE]")

        before = ray.replicas()
        worked_s = {pid: cpu_s(pid) for pid in before}
        asking = [pool.submit(post, node.url, max_tokens=100, temperature=i / 4) for i in range(4)]
        assert wait_until(lambda: any(cpu_s(pid) > worked_s[pid] + 0.1 for pid in before))
        os.kill(max(before, key=lambda pid: cpu_s(pid) - worked_s[pid]), signal.SIGKILL)
        assert [one.result()[0] for one in asking] == [200] * 4
        assert wait_until(lambda: len(ray.replicas()) == 2, START_S)
        assert ray.replicas() != before
        assert post(node.url, max_tokens=4)[0] == 200
    ray.end()
