"""Nodes as real processes on this machine, to measure how they get on with each other."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from manyminds.errors import ManymindsError
from manyminds.network.identity import Identity, read_or_make

__all__ = ["Fleet", "Progress", "Running", "expert", "free_port", "network", "says", "until"]

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

_SECRET: Final = "FLEET_SECRET"  # noqa: S105 - the name of the variable that holds it

_PER_MIN: Final = 1_000_000  # that nobody waits for: a node's own rate is not what is measured
_READY_S: Final = 120.0
_AT_ONCE: Final = 4  # nodes that are starting
_ENDED_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Running:
    """A node that answers."""

    name: str
    url: str
    process: "subprocess.Popen[bytes]"
    folder: Path
    tls: ssl.SSLContext | None = None

    def get(self, path: str) -> Any:
        """What it shows at a path, such as /v1/experts."""
        return json.loads(self.raw(path))

    def raw(self, path: str, body: bytes | None = None) -> bytes:
        """The same, as it came; of a body that is posted, what comes back."""
        url = self.url.removesuffix("/v1") + path
        with urllib.request.urlopen(url, body, timeout=30, context=self.tls) as response:  # noqa: S310
            return bytes(response.read())

    def figure(self, name: str, **labels: str) -> float:
        """One of its figures for Prometheus, without the prefix: summed over what has these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.raw("/metrics").decode().splitlines()
        own = [line for line in lines if line.startswith((f"manyminds_{name}{{", f"manyminds_{name} "))]
        return sum(float(line.split()[-1]) for line in own if all(label in line for label in wanted))

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A chat completion; an error's body where it is one."""
        headers = {"content-type": "application/json"}
        url, data = f"{self.url}/chat/completions", json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers)  # noqa: S310  # a loopback address of our own
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls) as response:  # noqa: S310
                found: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        return found

    def experts(self) -> set[str]:
        """Names of those that can be asked through it."""
        return {expert["name"] for expert in self.get("/v1/experts")["data"]}

    def kill(self) -> None:
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)

    def pss_mb(self) -> float:
        """Memory of its own, and its share of what it shares, in MB (1e6 bytes). Linux."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        (kb,) = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
        return kb * 1024 / 1e6


class Fleet:
    """Starts nodes, each with a home of its own, and ends them all. Use with `with`.

    Args:
        trusted: file with the certificates, in PEM, that its nodes trust besides; None is none.
    """

    def __init__(self, trusted: Path | None = None) -> None:
        self._tls = None if trusted is None else ssl.create_default_context(cafile=trusted)
        self._environ = {} if trusted is None else {"SSL_CERT_FILE": str(trusted)}
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []  # also of nodes that do not answer yet
        self.nodes: dict[str, Running] = {}

    def __enter__(self) -> "Fleet":
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="manyminds-fleet-")))
        self.speaker = self.model("manyminds.evals.speaker")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            _ended(process)
        self._stack.close()

    def start(self, nodes: Mapping[str, str]) -> list[Running]:
        """Starts nodes by name, each with this manyminds.toml; returns when all are ready.

        Models of a tier run only where it says so under `[local]`, and lie in the node's home.

        Raises: ManymindsError where one does not get so far.
        """
        names = list(nodes)
        for i in range(0, len(names), _AT_ONCE):
            begun = {name: self._begin(name, nodes[name]) for name in names[i : i + _AT_ONCE]}
            for name, process in begun.items():
                self.nodes[name] = self._listening(name, process)
        found = [self.nodes[name] for name in names]
        for node in found:
            if not until(lambda node=node: _is_ready(node), _READY_S):  # type: ignore[misc]
                raise ManymindsError(f"the node {node.name} was not ready within {_READY_S:g} s")
        return found

    def home(self, name: str) -> Path:
        """The home of the node of that name, which may not have been started yet."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def identity(self, name: str) -> Identity:
        """The keys of the node of that name, which may not have been started yet."""
        return read_or_make(self._folder / name)

    def keep(self, name: str, content: bytes) -> Path:
        """A file that is there as long as the fleet."""
        file = self._folder / name
        file.write_bytes(content)
        return file

    def model(self, module: str, *words: str) -> str:
        """The URL of a model: a module as a process that prints its port, as long as the fleet."""
        command = [sys.executable, "-m", module, *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        self._stack.callback(_ended, process)
        self._stack.callback(process.terminate)
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise ManymindsError(f"{module} did not start")
        return f"http://127.0.0.1:{int(line)}/v1"

    @contextmanager
    def running(self, module: str, *words: str) -> Iterator[None]:
        """A module as a process of its own while the block lasts, from when it says that it is ready."""
        command = [sys.executable, "-m", module, *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise ManymindsError(f"{module} {words[0]} did not start")
            yield
        finally:
            process.kill()
            _ended(process)

    def _begin(self, name: str, toml: str) -> "subprocess.Popen[bytes]":
        folder = self.home(name)
        local = "" if "[local]" in toml else '[local]\ntier = "none"\n'
        (folder / "manyminds.toml").write_text(f"{toml}\n{local}")
        own = {"MANYMINDS_HOME": str(folder), "MANYMINDS_POLICY_EXPLORE_RATE": "0"}
        own |= {"MANYMINDS_NETWORK_CANARIES": "0", _SECRET: "of this fleet"}
        environ = os.environ | own | self._environ
        command = [sys.executable, "-m", "manyminds", "serve", "--port", "0", "--json"]
        with (folder / "serve.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=log, env=environ, cwd=folder
            )
        self._processes.append(process)
        return process

    def _listening(self, name: str, process: "subprocess.Popen[bytes]") -> Running:
        assert process.stdout is not None
        text = b""
        for line in process.stdout:
            text += line
            if line.rstrip() == b"}":
                break
        folder = self._folder / name
        if not text:
            raise ManymindsError(
                f"the node {name} did not start: {(folder / 'serve.log').read_text()[-500:]}"
            )
        return Running(name, json.loads(text)["url"], process, folder, self._tls)


def network(name: str, *, listen: str = "", join: Sequence[str] = (), more: str = "") -> str:
    """The part of a manyminds.toml that says where a node joins others; `more` are further lines."""
    lines = [f'[network]\nname = "{name}"\nsecret_env = "{_SECRET}"\nrequests_per_min = {_PER_MIN}']
    lines += [f'listen = "{listen}"'] if listen else []
    lines += [f"join = {list(join)}"] if join else []
    return "\n".join([*lines, more, ""])


def expert(name: str, model: str, url: str, accuracy: float = 0.7) -> str:
    """The part that gives it a model behind a URL."""
    return f'[[expert]]\nname = "{name}"\nmodel = "{model}"\nurl = "{url}"\naccuracy = {accuracy:.4f}\n'


def says(node: Running, name: str, tokens: int = 1) -> str:
    """What an expert says in so many, asked by name through a node; "" where no answer came."""
    messages = [{"role": "user", "content": "Say so."}]
    reply = node.ask({"model": name, "messages": messages, "max_tokens": tokens})
    return str(reply["choices"][0]["message"]["content"]) if reply.get("choices") else ""


def until(condition: Callable[[], bool], budget_s: float) -> bool:
    """Looks again and again until it holds, or until the budget is gone; whether it does."""
    end_s = time.monotonic() + budget_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """One that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _is_ready(node: Running) -> bool:
    with suppress(OSError, urllib.error.URLError):
        return bool(node.get("/health/ready")["status"] == "ready")
    return False


def _ended(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_ENDED_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
