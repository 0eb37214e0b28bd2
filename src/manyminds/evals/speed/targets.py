"""What is measured: this package's own node, and its peers where they are installed.

Each is a context manager that yields a `Target`, and ends what it started. All relay to one upstream.
"""

import json
import os
import secrets
import shutil
import socket
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from manyminds.errors import ManymindsError
from manyminds.evals.speed.machine import Cores, running
from manyminds.evals.speed.tools import Target, Upstream

__all__ = ["Model", "count_rows", "find_nginx", "litellm", "manyminds", "nginx"]

_READY_S = 60.0
_WINDOW_TOKENS = 131_072  # the longest prompt has about 8,200
_NGINX = """
daemon off; master_process off; pid nginx.pid; error_log errors.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_body_buffer_size 1m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream models {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://models; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the upstream, under the name that callers use."""

    name: str
    upstream: str
    price_usd_per_m: float = 0.1


# --- manyminds -------------------------------------------------------------------------------------


@contextmanager
def manyminds(folder: Path, models: Sequence[Model], upstream: Upstream, cores: Cores) -> Iterator[Target]:
    """`manyminds serve` with a home in `folder`: a price on every model, a budget and a ledger."""
    folder.mkdir()
    (folder / "manyminds.toml").write_text(_settings(models, upstream))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MANYMINDS_")}
    environ |= {"MANYMINDS_HOME": str(folder / "home")}
    key = _key()
    command = [sys.executable, "-m", "manyminds", "serve", "--port", "0", "--tier", "none", "--json"]
    with running(command, cores.measured, folder, environ=environ) as process:
        assert process.stdout is not None
        text = b""
        for line in process.stdout:
            text += line
            if line.rstrip() == b"}":
                break
        else:
            raise ManymindsError(f"manyminds serve ended before it listened: {_said(folder)}")
        url = str(json.loads(text)["url"])
        target = Target("manyminds", int(url.rpartition(":")[2].partition("/")[0]), process.pid, key)
        _wait(target, "/health/ready", process, folder)
        yield target


def _settings(models: Sequence[Model], upstream: Upstream) -> str:
    lines = ["[policy]", "budget_usd = 1.0"]
    for model in models:
        lines += ["[[expert]]"]
        lines += [f"name = {json.dumps(model.name)}", f"model = {json.dumps(model.upstream)}"]
        lines += [f"url = {json.dumps(upstream.url)}", f"context_tokens = {_WINDOW_TOKENS}"]
        lines += [f"price_{way}_usd_per_m = {model.price_usd_per_m!r}" for way in ("in", "out")]
    return "\n".join([*lines, ""])


def _key() -> str:
    """What is sent as the caller's key."""
    return f"sk-{secrets.token_hex(24)}"


def count_rows(folder: Path) -> int:
    """Requests in the ledger of a node that ran in `folder` and has ended."""
    file = folder / "home" / "ledger.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        (rows,) = ledger.execute("SELECT count(*) FROM requests").fetchone()
    return int(rows)


# --- its peers -------------------------------------------------------------------------------------


def find_nginx() -> str | None:
    """Also where it is not on the path of an ordinary user."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(folder: Path, program: str, upstream: Upstream, cores: Cores) -> Iterator[Target]:
    """A plain proxy in one process, with kept connections on both sides and nothing buffered."""
    folder.mkdir()
    port = _free_port()
    (folder / "nginx.conf").write_text(_NGINX.format(port=port, upstream=upstream.port))
    command = [program, "-p", str(folder), "-e", "errors.log", "-c", "nginx.conf"]
    with running(command, cores.measured, folder) as process:
        target = Target("nginx", port, process.pid)
        _wait(target, "/stats", process, folder)
        yield target


@contextmanager
def litellm(
    folder: Path, program: str, models: Sequence[Model], upstream: Upstream, cores: Cores
) -> Iterator[Target]:
    """One worker in production mode, with granian where that is installed beside it, which is its fastest."""
    folder.mkdir()
    listed = [
        {
            "model_name": model.name,
            "litellm_params": {
                "model": f"openai/{model.upstream}",
                "api_base": upstream.url,
                "api_key": "none",
                "input_cost_per_token": model.price_usd_per_m / 1e6,
                "output_cost_per_token": model.price_usd_per_m / 1e6,
            },
        }
        for model in models
    ]
    (folder / "config.json").write_text(json.dumps({"model_list": listed}))  # JSON is YAML
    key = f"sk-{secrets.token_hex(24)}"
    environ = os.environ | {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    port = _free_port()
    command = [program, "--config", "config.json", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    if Path(program).with_name("granian").exists():
        command.append("--run_granian")
    with running(command, cores.measured, folder, environ=environ, output=folder / "out.log") as process:
        target = Target("litellm", port, process.pid, key)
        _wait(target, "/health/liveliness", process, folder)
        yield target


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(target: Target, path: str, process: "Popen[bytes]", folder: Path) -> None:
    """Until it answers. Raises: ManymindsError when it ends, or takes too long."""
    until = time.monotonic() + _READY_S
    url = f"http://127.0.0.1:{target.port}{path}"
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise ManymindsError(f"{target.name} did not get ready: {_said(folder)}")


def _said(folder: Path) -> str:
    """The last line of what it wrote to standard error."""
    lines = (folder / "errors.log").read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:500] if lines else "it did not say why"
