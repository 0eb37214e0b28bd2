"""Adding experts and removing them, against little servers on the loopback interface."""

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import artefact, catalog
from manyminds.config import load
from manyminds.config.added import edited, written
from manyminds.errors import ConfigError
from manyminds.ledger import Ledger
from manyminds.node import learnt
from tests.cli.test_cli import manyminds
from tests.learn.worlds import hand_made


class Server(ThreadingHTTPServer):
    """Lists these models at /v1/models; or answers with whatever it is told to."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.replies: dict[str, tuple[int, Mapping[str, str], bytes]] = {}
        self.keys: list[str] = []
        self.paths: list[str] = []

    def lists(self, *models: str, **more: Any) -> None:
        data = [{"id": model, "object": "model", "owned_by": "somebody"} | more for model in models]
        self.says(200, json.dumps({"object": "list", "data": data}).encode())

    def says(self, status: int, body: bytes = b"", path: str = "/v1/models", **headers: str) -> None:
        self.replies[path] = (status, headers, body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.keys.append(self.headers.get("authorization", ""))
        status, headers, body = self.server.replies.get(self.path, (404, {}, b"<html>"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    with Server(port) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def added(home: Path) -> list[dict[str, Any]]:
    file = home / "home" / "experts.toml"
    return list(tomllib.loads(file.read_text()).get("expert", [])) if file.exists() else []


def complaint(*words: str) -> str:
    result = manyminds("experts", *words)
    assert result.exit_code == 1, result.output
    said = result.stderr.strip().splitlines()[-1]
    assert said.startswith("manyminds: ")
    return said


# --- servers ---------------------------------------------------------------------------------------


def test_the_one_model_of_a_server_is_added(home: Path, server: Server) -> None:
    (home / "manyminds.toml").write_text("# mine\n[server]\nport = 7777\n")
    server.lists("qwen2.5:7b")
    result = manyminds("experts", "add", server.url, "--json")
    assert json.loads(result.stdout) == {
        "name": "qwen2.5:7b",
        "kind": "openai",
        "url": server.url,
        "model": "qwen2.5:7b",
        "path": "",
        "source": "qwen2.5:7b",
        "file": str(home / "home" / "experts.toml"),
        "probed": [],
    }
    assert "not probed. Nothing was learnt of the experts that are here" in result.stderr
    assert (home / "manyminds.toml").read_text() == "# mine\n[server]\nport = 7777\n"
    assert "qwen2.5:7b" in manyminds("experts", "list").stdout
    shown = {s["key"]: s["origin"] for s in json.loads(manyminds("config", "--json").stdout)}
    assert shown["expert.qwen2.5:7b.url"] == f"file {home / 'home' / 'experts.toml'}"
    assert server.paths == ["/v1/models"]
    assert server.keys == [""]


def test_an_expert_is_added_with_all_that_is_said_of_it(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODER_KEY", " s3cret ")
    server.lists("other", "coder", context_length=4096, pricing={"prompt": "0.000002", "completion": "-1"})
    words = ["--name", "mine", "--model", "coder", "--key-env", "CODER_KEY", "--source", "alice"]
    words += ["--skill", "python", "--skill", "code review", "--offer", "tools", "--accuracy", "0.75"]
    result = manyminds("experts", "add", server.url + "/", *words, "--price-out-usd-per-m", "3")
    assert result.exit_code == 0, result.output
    assert added(home) == [
        {
            "name": "mine",
            "url": server.url + "/",
            "model": "coder",
            "key_env": "CODER_KEY",
            "source": "alice",
            "skills": ["python", "code review"],
            "offers": ["tools"],
            "accuracy": 0.75,
            "context_tokens": 4096,
            "price_in_usd_per_m": 2.0,
            "price_out_usd_per_m": 3.0,
        }
    ]
    assert server.keys == ["Bearer s3cret"]
    assert "s3cret" not in result.output + (home / "home" / "experts.toml").read_text()


def test_several_models_are_listed(home: Path, server: Server) -> None:
    server.lists("b", "a")
    result = manyminds("experts", "add", server.url)
    assert result.stderr.splitlines()[:2] == ["a", "b"]
    assert "2 models: say which with --model NAME" in complaint("add", server.url)
    assert "no model 'bb': did you mean b?" in complaint("add", server.url, "--model", "bb")
    assert added(home) == []


def test_what_a_server_says_is_not_believed_too_far(home: Path, server: Server) -> None:
    odd = {"max_model_len": True, "context_length": -4, "pricing": {"prompt": "nan", "completion": [1]}}
    server.lists("a", "\x1b[2J", "b" * 300, "", owned_by=7, **odd)
    assert manyminds("experts", "add", server.url).exit_code == 0
    assert added(home) == [{"name": "a", "url": server.url, "model": "a"}]
    server.lists("no name\u00e9")
    assert "give it a name, with --name NAME" in complaint("add", server.url)
    for body in (b"<html>", b"[]", b'{"data": 1}', b'{"data": [{}]}', b"\xff", b"[" * 100_000):
        server.says(200, body)
        assert "no list of models" in complaint("add", server.url)
    server.lists()
    assert "has no model: load" in complaint("add", server.url)


def test_why_a_server_is_not_added(home: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    root = server.url.removesuffix("/v1")
    assert f"did you mean {server.url}?" in complaint("add", root)
    assert f"did you mean {server.url}?" in complaint("add", f"{server.url}/chat/completions")
    assert "base URL of an OpenAI-compatible server" in complaint("add", server.url)
    server.says(200, b"welcome", "/models")
    assert f"did you mean {server.url}?" in complaint("add", root)
    server.says(302, location="http://169.254.169.254/v1\n", path="/v1/models")
    assert "redirects to 'http://169.254.169.254/v1', which is not followed" in complaint("add", server.url)
    server.says(401, b"sk-never-shown")
    assert "wants a key" in complaint("add", server.url)
    assert "MY_KEY is not set: export it" in complaint("add", server.url, "--key-env", "MY_KEY")
    monkeypatch.setenv("MY_KEY", "sk-never-shown")
    told = complaint("add", server.url, "--key-env", "MY_KEY")
    assert "refuses the key in MY_KEY (status 401)" in told
    assert "never-shown" not in told
    server.says(500)
    assert "status 500" in complaint("add", server.url)
    assert "is its server running?" in complaint("add", "http://127.0.0.1:1/v1")
    assert f"did you mean http://{server.url[7:]}?" in complaint("add", server.url[7:])
    assert "without user, password" in complaint("add", server.url.replace("//", "//me:pw@"))
    assert "is no URL" in complaint("add", "http://[::1/v1")
    assert "no valid host and port" in complaint("add", "http://127.0.0.1:x/v1")
    assert "(--key-env)" in complaint("add", server.url, "--key-env", "sk-abc")
    assert "(--accuracy)" in complaint("add", server.url, "--accuracy", "7")
    assert added(home) == []


def test_a_server_that_says_too_much_or_breaks_off(home: Path, server: Server) -> None:
    server.says(200, b" " * 17_000_000)
    assert "does not answer as a server of models does" in complaint("add", server.url)
    server.replies["/v1/models"] = (200, {"transfer-encoding": "chunked"}, b"zz")
    assert "does not answer as a server of models does" in complaint("add", server.url)


def test_a_node_is_not_added_to_itself(home: Path, server: Server) -> None:
    server.lists("auto", "a", owned_by="manyminds")
    assert manyminds("experts", "add", server.url, "--model", "a").exit_code == 0
    (home / "manyminds.toml").write_text(f"[server]\nport = {server.server_port}\n")
    assert "this node itself" in complaint("add", server.url, "--model", "auto", "--name", "again")


# --- names -----------------------------------------------------------------------------------------


def test_a_name_that_is_taken(home: Path, server: Server) -> None:
    own = home / "own.gguf"
    own.write_bytes(b"GGUF")
    catalog.add_own(home / "home", own, "own")
    (home / "manyminds.toml").write_text(
        '[[expert]]\nname = "mine"\nurl = "http://127.0.0.1:9/v1"\n[aliases]\n"gpt" = "mine"\n'
    )
    server.lists("new")
    assert manyminds("experts", "add", server.url).exit_code == 0
    taken = {
        "auto": "a policy",
        "smollm2-135m": "of the catalogue",
        "manyminds": "manyminds itself",
        "own": "`manyminds pull --gguf`",
        "mine": str(home / "manyminds.toml"),
        "gpt": "an alias",
        "new": str(home / "home" / "experts.toml"),
    }
    for name, holder in taken.items():
        assert holder in complaint("add", server.url, "--name", name)
    assert "1 to 64" in complaint("add", server.url, "--name", "a b")
    assert [entry["name"] for entry in added(home)] == ["new"]


def test_commands_at_once_lose_nothing(home: Path, server: Server) -> None:
    server.lists("m")
    command = [sys.executable, "-m", "manyminds", "experts", "add", server.url, "--name"]
    names = [f"e{i}" for i in range(4)] + ["e0"]
    running = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in names]
    told = [process.communicate(timeout=60)[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 0, 0, 0, 1], told
    assert sorted(entry["name"] for entry in added(home)) == ["e0", "e1", "e2", "e3"]


# --- files -----------------------------------------------------------------------------------------


def test_a_gguf_file_is_added(home: Path) -> None:
    (home / "House-7b.gguf").write_bytes(b"GGUF and more")
    result = manyminds("experts", "add", "House-7b.gguf", "--skill", "law")
    assert result.exit_code == 0, result.output
    path = str(home / "House-7b.gguf")
    assert added(home) == [{"name": "house-7b", "kind": "local", "path": path, "skills": ["law"]}]
    (home / "not.gguf").write_bytes(b"GG")
    assert "is not a GGUF file" in complaint("add", "not.gguf")
    assert "neither a URL like" in complaint("add", "gone.gguf")
    assert manyminds("experts", "add", "House-7b.gguf", "--model", "x").exit_code == 2
    with (home / "large.gguf").open("wb") as file:
        file.write(b"GGUF")
        file.truncate(9_000_000_000)
    assert "local.max_memory_gb is 4: it is not asked" in manyminds("experts", "add", "large.gguf").stderr


def test_a_card_is_added_as_far_as_it_is_to_be_believed(home: Path, server: Server) -> None:
    server.lists("m", "other")
    fields = {"name": "hers", "url": server.url, "model": "m", "skills": ["law"], "price_out_usd_per_m": 2}
    card = home / "card.json"
    card.write_text(json.dumps(fields))
    assert manyminds("experts", "add", "card.json", "--source", "her").exit_code == 0
    assert added(home) == [fields | {"source": "her"}]
    (home / "card.toml").write_text(written(fields))
    assert manyminds("experts", "add", "card.toml", "--name", "again").exit_code == 0
    odd: dict[str, Any] = {
        "names a key of yours": {"key_env": "OPENAI_API_KEY"},
        "of kind local": {"kind": "local", "path": "/etc/passwd"},
        "Unknown key": {"secret_key": "x"},
        "cannot be shown": {"source": "\x1b[2J"},
        "not nan": {"accuracy": float("nan")},
        "no model 'm2'": {"model": "m2"},
    }
    for why, more in odd.items():
        card.write_text(json.dumps({**fields, "name": "x", **more}))
        assert why in complaint("add", "card.json")
    whole = {
        "describes 2 experts": json.dumps({"expert": [fields, fields]}),
        "larger than 64 kB": " " * 64_001,
        "is no card": "[" * 60_000,
        "write each expert": "3",
    }
    for why, text in whole.items():
        card.write_text(text)
        assert why in complaint("add", "card.json")
    assert len(added(home)) == 2


# --- removing --------------------------------------------------------------------------------------


def test_an_expert_is_removed(home: Path, server: Server) -> None:
    server.lists("m")
    for name in ("a", "b"):
        manyminds("experts", "add", server.url, "--name", name)
    (home / "manyminds.toml").write_text('[aliases]\n"gpt" = ["b"]\n')
    result = manyminds("experts", "remove", "a", "--json")
    assert [one["name"] for one in json.loads(result.stdout)["removed"]] == ["a"]
    assert "begins as new" in result.stderr
    assert [entry["name"] for entry in added(home)] == ["b"]
    assert "aliases.gpt" in complaint("remove", "b")
    (home / "manyminds.toml").unlink()
    artefact.save(hand_made({"b": 0.5, "c": 0.5}), home / "home" / "artefact.npz")
    result = manyminds("experts", "remove", "b", "--json")
    assert "They are out, yet what was learnt with them was not made anew" in result.stderr
    assert json.loads(result.stdout)["relearnt"] is False
    assert added(home) == []
    with closing(Ledger(load(None, {"MANYMINDS_HOME": str(home / "home")}, {}).ledger.url)) as ledger:
        assert learnt(home / "home", ledger.gone())[0] is None
    assert learnt(home / "home")[0] is not None


def test_where_others_are_removed(home: Path) -> None:
    (home / "manyminds.toml").write_text('[[expert]]\nname = "mine"\nurl = "http://127.0.0.1:9/v1"\n')
    assert "Did you mean mine?" in complaint("remove", "mina")
    assert "was not withdrawn" in complaint("remove", "--undo", "mine")
    result = manyminds("experts", "remove", "mine")
    assert "manyminds.toml may be deleted" in result.stderr
    assert "mine" not in manyminds("experts", "list").stdout
    assert manyminds("experts", "remove", "--undo", "mine").exit_code == 0
    assert "mine" in manyminds("experts", "list").stdout
    (home / "own.gguf").write_bytes(b"GGUF")
    catalog.add_own(home / "home", home / "own.gguf", "own")
    assert manyminds("experts", "remove", "own").exit_code == 0
    assert catalog.own(home / "home") == []
    assert (home / "own.gguf").exists()
    assert not (home / "home" / "experts.toml").exists()


def test_removing_mends_a_name_that_came_to_be_taken(home: Path, server: Server) -> None:
    server.lists("m")
    manyminds("experts", "add", server.url)
    (home / "manyminds.toml").write_text('[[expert]]\nname = "m"\nurl = "http://127.0.0.1:9/v1"\n')
    assert "`manyminds experts remove m`" in complaint("list")
    assert manyminds("experts", "remove", "m").exit_code == 0
    assert manyminds("experts", "list").exit_code == 0


# --- the file --------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(source=TEXTS, skills=st.lists(TEXTS), price=st.floats(0, 1e300), tokens=st.integers(1, 2**62))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, source: str, skills: list[str], price: float, tokens: int
) -> None:
    folder = tmp_path_factory.mktemp("home")
    table: dict[str, Any] = {"name": "a", "url": "http://h/v1", "source": source, "skills": skills}
    table |= {"price_in_usd_per_m": price, "context_tokens": tokens}
    with edited(folder) as tables:
        tables.append(table)
    with edited(folder) as tables:
        assert tables == [table]
    [entry] = load(None, {"MANYMINDS_HOME": str(folder)}, {}).experts
    assert (entry.skills, entry.price_in_usd_per_m, entry.context_tokens) == (tuple(skills), price, tokens)


def test_what_is_wrong_is_not_written(tmp_path: Path) -> None:
    good = {"name": "a", "url": "http://h/v1"}
    with edited(tmp_path) as tables:
        tables.append(good)
    before = (tmp_path / "experts.toml").read_bytes()
    for wrong in ({"name": "b"}, good, {**good, "name": "b", "source": "half \udc80"}):
        with pytest.raises(ConfigError), edited(tmp_path) as tables:
            tables.append(wrong)
    with pytest.raises(KeyboardInterrupt), edited(tmp_path) as tables:
        tables.clear()
        raise KeyboardInterrupt
    assert (tmp_path / "experts.toml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] != []
    assert not list(tmp_path.glob(".experts.toml.?*[!k]"))
