"""What is found on this machine, and that nothing of a key but its name is told."""

import asyncio
import json
import os
import pty
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from manyminds.cli.discover import PORTS, hint, keys, servers
from manyminds.config import Config, ExpertEntry
from tests.cli.test_add import Server, added, complaint, server, serving
from tests.cli.test_cli import manyminds

__all__ = ["server"]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)


def test_servers_with_new_models_are_found_and_own_nodes_are_not(tmp_path: Path, server: Server) -> None:
    port = server.server_port
    with socket.create_server(("127.0.0.1", 0)) as silent, serving() as ours, serving() as other:
        ports = {port: "Ollama", silent.getsockname()[1]: "vLLM", 1: "nobody"}
        ports |= {ours.server_port: "llama.cpp", other.server_port: "LM Studio"}
        ours.lists("auto", "max", owned_by="manyminds")
        other.says(200, b"<html>")
        server.lists("b", "a")
        config = Config(home=tmp_path)
        [found] = asyncio.run(servers(config, ports))
        assert (found.program, found.url) == ("Ollama", server.url)
        assert [offer.model for offer in found.models] == ["a", "b"]
        localhost = f"http://localhost:{port}/v1"
        config = Config(home=tmp_path, experts=(ExpertEntry(name="x", model="a", url=localhost),))
        [found] = asyncio.run(servers(config, ports))
        assert [offer.model for offer in found.models] == ["b"]
        server.lists("a")
        assert asyncio.run(servers(config, ports)) == []


def test_keys_are_found_by_name(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "GROQ_API_KEY": " ", "MISTRAL_API_KEY": "sk-2", "MY_API_KEY": "sk-3"}
    url = "https://api.mistral.ai/v1"
    used = ExpertEntry(name="x", url=url, key_env="MISTRAL_API_KEY")
    assert keys(Config(home=tmp_path, experts=(used,)), environ) == {
        "OPENAI_API_KEY": "https://api.openai.com/v1"
    }
    assert "sk-" not in hint(Config(home=tmp_path), environ)


def test_what_is_found_is_listed_and_added(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    for port in PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            break
    else:
        pytest.skip("all of the usual ports are taken")
    with serving(port) as server:
        server.lists("a", "b", "auto", context_length=512)
        shown = manyminds("experts", "add", "--discover")
        assert f"a  {PORTS[port]} at {server.url}" in shown.stdout
        told = "`manyminds experts add https://api.openai.com/v1 --key-env OPENAI_API_KEY --model MODEL`"
        assert told in shown.stderr
        assert "never-shown" not in shown.output
        assert added(home) == []
        assert "has a new model 'c'" in complaint("add", "--discover", "c")
        found = json.loads(manyminds("experts", "add", "--discover", "a", "--json").stdout)
        assert {"key_env": "OPENAI_API_KEY", "url": "https://api.openai.com/v1"} in found["keys"]
        assert [(entry["name"], entry["url"]) for entry in found["added"]] == [("a", server.url)]
        assert {"program": PORTS[port], "url": server.url, "models": ["a", "auto", "b"]} in found["servers"]
        every = manyminds("experts", "add", "--discover", "--all")
        assert "auto at" in every.stderr
        assert "is taken, by a policy" in every.stderr
        assert "is taken, by a policy" in complaint("add", "--discover", "auto")
        mine = [entry for entry in added(home) if entry["url"] == server.url]
        assert [(entry["name"], entry["context_tokens"]) for entry in mine] == [("a", 512), ("b", 512)]
        assert set(server.keys) == {""}
    for wrong in (["--discover", "--name", "x"], ["--all"], [], ["a", "b"]):
        assert manyminds("experts", "add", *wrong).exit_code == 2


def test_serve_says_what_else_there_is_on_a_terminal_only(home: Path) -> None:
    environ = os.environ | {"OPENAI_API_KEY": "sk-never-shown", "MANYMINDS_POLICY_EXPLORE_RATE": "0"}
    command = [sys.executable, "-m", "manyminds", "serve", "--port", "0"]

    def said(terminal: bool) -> str:
        ours, theirs = pty.openpty() if terminal else os.pipe()
        process = subprocess.Popen(command, stderr=theirs, env=environ, cwd=home)
        os.close(theirs)
        text = b""
        while b"manyminds listens at" not in text and b"manyminds is ready" not in text:
            text += os.read(ours, 65_536)
        process.terminate()
        with suppress(OSError):  # what a terminal without a process says
            while os.read(ours, 65_536):
                pass
        process.wait(timeout=20)
        os.close(ours)
        return text.decode()

    told = said(terminal=True)
    assert "OPENAI_API_KEY. `manyminds experts add --discover` says how" in told
    assert "never-shown" not in told
    assert "--discover" not in said(terminal=False)
