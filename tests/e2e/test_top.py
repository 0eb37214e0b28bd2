"""`manyminds top` on a real node: as JSON, as a table, live on a terminal, and where it may not look."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.node import Served, need, served
from tests.e2e.test_administering import scripted
from tests.e2e.test_reload import ask

ENTRY = '[[expert]]\nname = "tiny"\nurl = "{url}"\nmodel = "tiny"\n'


def top(node: Served, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "manyminds", "top", "--url", node.url, *words]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no pseudo-terminals")
def test_what_a_node_does_is_shown_as_json_as_a_table_and_live(tmp_path: Path) -> None:
    need()
    with scripted("tiny") as server:
        (tmp_path / "manyminds.toml").write_text(ENTRY.format(url=server.url))
        with served(tmp_path, "--tier", "none") as node:
            assert ask(node, "auto", messages=[{"role": "user", "content": "Why?"}])[0] == 200
            found = json.loads(top(node, "--json").stdout)
            assert (found["traffic"]["requests"], found["traffic"]["running"]) == (1, 1)
            assert [one["name"] for one in found["experts"]] == ["tiny"]
            head, _, row, *_ = top(node).stdout.splitlines()
            assert "1 requests" in head
            assert row.split()[:2] == ["tiny", "up"]
            assert "\x1b" not in head + row
            _watch(node)
        done = top(node)
        assert (done.returncode, done.stdout) == (1, "")
        assert "No node answers" in done.stderr
        assert "`manyminds serve`" in done.stderr


def _watch(node: Served) -> None:
    """A request that is made while it is shown is seen, and Ctrl-C ends it in good order."""
    import pty

    pid, screen = pty.fork()
    if pid == 0:
        environ = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
        os.execve(sys.executable, [sys.executable, "-m", "manyminds", "top", "--url", node.url], environ)
    shown, asked, until = "", False, time.monotonic() + 60
    while time.monotonic() < until and not re.search(r"auto.*tiny ok", shown):
        if select.select([screen], [], [], 0.5)[0]:
            shown += os.read(screen, 65_536).decode(errors="replace")
        if not asked and "tiny" in shown:
            asked = ask(node, "auto", messages=[{"role": "user", "content": "And why now?"}])[0] == 200
    assert re.search(r"auto.*tiny ok", shown), shown
    os.kill(pid, signal.SIGINT)
    try:
        while piece := os.read(screen, 65_536):
            shown += piece.decode(errors="replace")
    except OSError:  # what Linux says when the other side has closed it
        pass
    assert os.waitpid(pid, 0)[1] == 0, shown
    assert shown.count("\x1b[?1049l") == 1, "the screen is as it was"
    assert "Traceback" not in shown


def test_an_admin_s_key_is_needed_where_keys_are(tmp_path: Path) -> None:
    need()
    environ = os.environ | {"MANYMINDS_HOME": str(tmp_path / "home"), "MANYMINDS_LOCAL_TIER": "none"}
    keys = {}
    for name, flags in (("plain", ()), ("boss", ("--admin",))):
        command = [sys.executable, "-m", "manyminds", "keys", "create", name, *flags, "--json"]
        made = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
        keys[name] = json.loads(made.stdout)["key"]
    with served(tmp_path, "--tier", "none", env={"MANYMINDS_SERVER_KEYS": "required"}) as node:
        for secret in ("", keys["plain"]):
            done = top(node, "--json", NODE_KEY=secret)
            assert (done.returncode, done.stdout) == (1, "")
            assert "manyminds keys create NAME --admin" in done.stderr
            assert "NODE_KEY" in done.stderr
        done = top(node, "--json", "--key-env", "BOSS", BOSS=keys["boss"])
        assert done.returncode == 0, done.stderr
        assert keys["boss"] not in done.stdout + done.stderr
