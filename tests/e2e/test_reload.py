"""The real process takes over what changed, by itself or on SIGHUP, and nobody who is answered notices."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import Served, borrowed, need, served, wait_until
from tests.e2e.test_workers import Expert, answering, figures, recorded, said
from tests.faults.network import made
from tests.web.test_tls import made as certified

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")

ALIKE = pytest.mark.parametrize("workers", [1, 2])


def upstream() -> Iterator[Expert]:
    with answering() as server:
        yield server


one = pytest.fixture(upstream, name="one")
two = pytest.fixture(upstream, name="two")


def entry(name: str, at: Expert, more: str = "") -> str:
    return f'[[expert]]\nname = "{name}"\nurl = "http://127.0.0.1:{at.server_port}/v1"\n{more}\n'


def configure(folder: Path, *tables: str) -> None:
    (folder / "manyminds.toml").write_text('[local]\ntier = "none"\n' + "\n".join(tables))


def reload(node: Served, folder: Path, workers: int = 1, *, ends: str = "was read anew") -> str:
    """Has it read its file, and waits until each worker has; what they said of it."""
    before = said(folder)
    node.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: said(folder)[len(before) :].count(ends) == workers), said(folder)[len(before) :]
    return said(folder)[len(before) :]


def ask(node: Served, model: str, secret: str = "none", path: str = "chat/completions", **more: Any) -> Any:
    """Status and body of a reply."""
    body = {"model": model, "messages": [{"role": "user", "content": "17 + 26?"}]} if model else {}
    headers = {"authorization": f"Bearer {secret}"}
    request = urllib.request.Request(f"{node.url}/{path}", json.dumps(body | more).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def models(node: Served) -> set[str]:
    return {model["id"] for model in node.get("/v1/models")["data"]}


@ALIKE
def test_experts_and_aliases_change_and_a_stream_goes_on(
    tmp_path: Path, one: Expert, two: Expert, workers: int
) -> None:
    aliases = '[aliases]\n"gpt-*" = ["{}"]\nmine = ["{}"]\n'
    configure(tmp_path, aliases.format("a", "gone"), *(entry(name, one) for name in ("a", "b", "gone")))
    one.going_on.clear()
    with served(tmp_path, "--workers", str(workers)) as node:
        assert {"a", "b", "gone"} <= models(node)
        assert [ask(node, name)[0] for name in ("b", "gpt-4o", "mine")] == [200] * 3
        assert (one.asked, two.asked) == (3, 0)
        under_way = []
        for _ in range(2 * workers):
            connection = http.client.HTTPConnection(node.url.split("/")[2], timeout=30)
            body = {"model": "gone", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            reply = connection.getresponse()
            under_way.append((connection, reply, reply.readline()))
        configure(tmp_path, aliases.format("b", "new"), entry("a", one), entry("b", two), entry("new", two))
        reload(node, tmp_path, workers)
        for _ in range(2 * workers):  # whichever of them it is that answers
            assert {"a", "b", "new"} <= models(node)
            assert "gone" not in models(node)
            assert ask(node, "gone")[0] == 404
        before = one.asked
        assert [ask(node, name)[0] for name in ("b", "gpt-4o", "mine", "new")] == [200] * 4
        assert (one.asked, two.asked) == (before, 4)
        assert ask(node, "a")[0] == 200
        assert one.asked == before + 1
        one.going_on.set()
        for connection, reply, begun in under_way:
            rest = begun + reply.read()
            connection.close()
            assert b"be it" in rest
            assert rest.rstrip().endswith(b"data: [DONE]")
            assert b'"error":{' not in rest
    assert recorded(tmp_path) == 8 + 2 * workers
    assert "Traceback" not in said(tmp_path)


def test_a_wrong_file_changes_nothing(tmp_path: Path, one: Expert) -> None:
    workers = 2
    configure(tmp_path, entry("a", one))
    with served(tmp_path, "--workers", str(workers)) as node:
        for wrong, why in (
            ("[[expert", "is not valid TOML"),
            ("[server]\nprot = 1\n", "prot"),
            ('[aliases]\nmine = ["nobody"]\n' + entry("b", one), "nobody"),
            (entry("b", one) + entry("b", one), "two experts are named 'b'"),
        ):
            configure(tmp_path, wrong)
            told = reload(node, tmp_path, workers, ends="stays as it was")
            assert re.search(why, told), told
            assert ask(node, "a")[0] == 200
            assert "b" not in models(node)
        configure(tmp_path, entry("a", one), entry("b", one))
        reload(node, tmp_path, workers)
        assert [ask(node, "b")[0] for _ in range(2 * workers)] == [200] * 2 * workers
    assert "Traceback" not in said(tmp_path)


# --- by itself -------------------------------------------------------------------------------------


@ALIKE
def test_changed_files_are_taken_over_and_wrong_ones_told_once(
    tmp_path: Path, one: Expert, two: Expert, workers: int
) -> None:
    configure(tmp_path, entry("a", one))
    added = tmp_path / "home" / "experts.toml"

    def told(what: str) -> bool:
        return wait_until(lambda: said(tmp_path).count(what) == workers)

    with served(tmp_path, "--workers", str(workers)) as node, ThreadPoolExecutor(2) as pool:
        going = threading.Event()
        going.set()

        def asks() -> set[int]:
            found = set()
            while going.is_set():
                found.add(ask(node, "a")[0])
            return found

        asking = [pool.submit(asks) for _ in range(2)]
        try:
            assert "experts.toml" not in said(tmp_path)
            added.write_text(entry("b", two))
            assert told("a, b can be asked")
            assert [ask(node, "b")[0] for _ in range(2 * workers)] == [200] * 2 * workers
            added.write_text("[[expert")
            assert told("is not valid TOML")
            added.write_text("[server]\nport = 1\n")
            assert told("holds experts and peers only, not server")
            assert [ask(node, "b")[0] for _ in range(2 * workers)] == [200] * 2 * workers
            added.write_text(entry("a", two))
            assert told("`manyminds experts remove a`")
            added.unlink()
            assert told("anew: a can be asked")
            configure(tmp_path, entry("a", one), entry("new", two))
            assert told("a, new can be asked")
        finally:
            going.clear()
        assert [one.result() for one in asking] == [{200}] * 2
        assert models(node) >= {"a", "new"}
    for once in ("is not valid TOML", "holds experts and peers only", "remove a`"):
        assert said(tmp_path).count(once) == workers
    assert "Traceback" not in said(tmp_path)


def test_a_file_that_comes_later_and_what_is_learnt_later_count(tmp_path: Path, one: Expert) -> None:
    with served(tmp_path, env={"MANYMINDS_LOCAL_TIER": "none"}) as node:
        assert "a" not in models(node)
        (tmp_path / "manyminds.toml").write_text(entry("a", one))
        assert wait_until(lambda: "a" in models(node))
        borrowed(tmp_path, untaught=True)
        assert wait_until(lambda: "artefact.npz: learnt from" in said(tmp_path))
        (tmp_path / "home" / "artefact.npz").write_bytes(b"cut")
        assert wait_until(lambda: "stays as it was" in said(tmp_path))
        assert ask(node, "a")[0] == 200
    assert "Traceback" not in said(tmp_path)


# --- what changes ----------------------------------------------------------------------------------


def test_what_takes_a_restart_is_said_as_long_as_it_does(tmp_path: Path, one: Expert) -> None:
    configure(tmp_path, entry("a", one))
    with served(tmp_path) as node:
        changed = '[server]\nhost = "localhost"\nmost_at_once = 7\n[ledger]\nstore_text = true\n'
        for _ in range(2):
            configure(tmp_path, changed, entry("a", one))
            told = reload(node, tmp_path)
            assert "server.host, server.most_at_once, ledger.store_text will count after a restart" in told
        configure(tmp_path, entry("a", one))
        assert "restart" not in reload(node, tmp_path)
        cert, key = certified(tmp_path, "a", kind="ec:" + curve(tmp_path))
        configure(tmp_path, f'[server]\ntls_cert = "{cert}"\ntls_key = "{key}"', entry("a", one))
        assert "server.tls_cert will count after a restart" in reload(node, tmp_path)
        assert ask(node, "a")[0] == 200


def test_a_circuit_stays_open_until_its_expert_is_another(tmp_path: Path, one: Expert, two: Expert) -> None:
    workers = 2  # what one of them knows of an expert, both do
    configure(tmp_path, entry("a", one), entry("b", one))
    one.failing = True
    with served(tmp_path, "--workers", str(workers)) as node:

        def open_circuits() -> set[str]:
            found = re.findall(r'^manyminds_expert_circuit_open\{expert="(\w+)"\} [1-9]', figures(node), re.M)
            return set(found)

        assert [ask(node, name)[0] for name in "ab" for _ in range(6)] == [503] * 12
        assert open_circuits() == {"a", "b"}
        configure(tmp_path, entry("a", one), entry("b", two))
        reload(node, tmp_path, workers)
        assert open_circuits() == {"a"}
        assert ask(node, "a")[0] == 503
        assert [ask(node, "b")[0] for _ in range(2 * workers)] == [200] * 2 * workers
        assert (two.asked, open_circuits()) == (2 * workers, {"a"})


def test_what_was_kept_is_asked_anew(tmp_path: Path, one: Expert, two: Expert) -> None:
    cache = '[cache]\nentries = 9\npolicies = ["pass"]\n'
    configure(tmp_path, cache, entry("a", one))
    with served(tmp_path) as node:

        def found() -> str:
            return str(ask(node, "a")[1]["manyminds"]["cache"])

        assert [found(), found()] == ["miss", "hit"]
        configure(tmp_path, cache, entry("a", two))
        reload(node, tmp_path)
        assert [found(), found()] == ["miss", "hit"]
    assert (one.asked, two.asked) == (1, 1)


def test_local_models_come_change_and_go(tmp_path: Path, one: Expert) -> None:
    """While somebody asks for them all the time: nobody is refused, and no process is left."""
    need()
    workers = 2

    def change(settings: str) -> set[int]:
        """Process ids of the local models when all is done."""
        settings = f"[local]\nmax_memory_gb = 0.5\n{settings}\n[policy]\ndeadline_s = 5.0\n"
        (tmp_path / "manyminds.toml").write_text(settings + entry("a", one))
        told = reload(node, tmp_path, workers)
        running = 1 if "smollm2-135m" in told else 0
        assert wait_until(lambda: len(node.children()) == running)
        return set(node.children().values())

    configure(tmp_path, entry("a", one))
    with (
        served(tmp_path, "--workers", str(workers), untaught=True) as node,
        ThreadPoolExecutor(4) as pool,
    ):
        first = change("threads = 1")
        going = threading.Event()
        going.set()

        def asks() -> set[int]:
            found = set()
            while going.is_set():
                found.add(ask(node, "auto", max_tokens=4, manyminds={"cache": "off"})[0])
            return found

        asking = [pool.submit(asks) for _ in range(4)]
        try:
            second = change("threads = 2")
            assert not first & second
            assert change('tier = "none"') == set()
        finally:
            going.clear()
        assert [one.result() for one in asking] == [{200}] * 4
        assert ask(node, "smollm2-135m")[0] == 404
        assert wait_until(lambda: not node.children())
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in first | second))
    assert "Traceback" not in said(tmp_path)


def test_who_comes_late_to_a_local_model_that_is_gone_is_answered(tmp_path: Path) -> None:
    """It is loaded once more for who began before, and then ends for good."""
    need()
    with socket.create_server(("127.0.0.1", 0)) as hung, ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{hung.getsockname()[1]}/v1"
        settings = "[local]\nmax_memory_gb = 0.5\n{}\n[policy]\ndeadline_s = 40.0\n"
        settings += f'[[expert]]\nname = "hung"\nurl = "{url}"\n'
        (tmp_path / "manyminds.toml").write_text(settings.format(""))
        with served(tmp_path) as node:
            (first,) = node.children().values()
            asking = pool.submit(ask, node, "hung", models=["hung", "smollm2-135m"], max_tokens=4)
            connection, _ = hung.accept()
            (tmp_path / "manyminds.toml").write_text(settings.format('tier = "none"'))
            reload(node, tmp_path)
            assert wait_until(lambda: not Path(f"/proc/{first}").exists())
            hung.close()
            connection.close()
            status, reply = asking.result()
            assert (status, reply["manyminds"]["panel"][-1]["expert"]) == (200, "smollm2-135m")
            assert wait_until(lambda: not node.children())


def test_what_callers_say_is_learnt_once_and_outlives_reload_and_restart(tmp_path: Path, one: Expert) -> None:
    configure(tmp_path, entry("a", one))
    (tmp_path / "home").mkdir()
    (_, ann), (_, bob) = (made(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") for _ in range(2))
    with served(tmp_path) as node:

        def grade(secret: str, request_id: str) -> Any:
            return ask(node, "", secret, "feedback", request_id=request_id, correct=1.0)

        def probability() -> float:
            status, reply = ask(node, "a", ann)
            assert status == 200
            return float(reply["manyminds"]["probability"])

        replies = [ask(node, "a", ann)[1]["manyminds"] for _ in range(3)]
        prior = replies[0]["probability"]
        for report in replies:
            request_id = report["request_id"]
            assert grade(bob, request_id)[0] == 404
            status, told = grade(ann, request_id)
            assert (status, told) == (200, {"object": "feedback", "request_id": request_id, "learnt": True})
            assert grade(ann, request_id)[0] == 409
        assert grade(ann, "req_nobody")[0] == 404
        learnt = probability()
        assert learnt > prior
        configure(tmp_path, entry("a", one), entry("b", one))
        reload(node, tmp_path)
        assert probability() == pytest.approx(learnt)
        configure(tmp_path, entry("a", one, "context_tokens = 4096"), entry("b", one))
        reload(node, tmp_path)
        assert probability() == pytest.approx(learnt)
    with served(tmp_path) as node:
        assert probability() == pytest.approx(learnt)


# --- TLS -------------------------------------------------------------------------------------------


def curve(folder: Path) -> str:
    """Parameters of keys that are made at once."""
    file = folder / "curve"
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-out", file], check=True, capture_output=True
    )
    return str(file)


def test_a_renewed_certificate_is_taken_over(
    tmp_path: Path, one: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = 2
    (first, first_key), (renewed, renewed_key) = (
        certified(tmp_path, name, kind="ec:" + curve(tmp_path)) for name in ("first", "renewed")
    )
    cert, key, trusted = tmp_path / "node.crt", tmp_path / "node.key", tmp_path / "trusted.pem"
    trusted.write_text(first.read_text() + renewed.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    cert.write_text(first.read_text())
    key.write_text(first_key.read_text())
    configure(tmp_path, '[server]\ntls_cert = "node.crt"\ntls_key = "node.key"\n', entry("a", one))
    with served(tmp_path, "--workers", str(workers)) as node:
        host, port = node.url.split("/")[2].split(":")

        def shown() -> set[str]:
            return {ssl.get_server_certificate((host, int(port))).strip() for _ in range(3 * workers)}

        assert node.url.startswith("https://")
        assert ask(node, "a")[0] == 200
        assert shown() == {first.read_text().strip()}
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(node.url.replace("https:", "http:") + "/models", timeout=10)
        kept = http.client.HTTPSConnection(host, int(port), timeout=20)
        kept.request("GET", "/health/live")
        assert kept.getresponse().read()
        cert.write_text(renewed.read_text())  # before its key
        assert "does not belong" in reload(node, tmp_path, workers, ends="stays as it was")
        assert shown() == {first.read_text().strip()}
        key.write_text(renewed_key.read_text())
        reload(node, tmp_path, workers)
        assert shown() == {renewed.read_text().strip()}
        assert ask(node, "a")[0] == 200
        kept.request("GET", "/health/live")
        assert kept.getresponse().status == 200
        kept.close()
    assert "Traceback" not in said(tmp_path)


# --- what is set -----------------------------------------------------------------------------------


def test_aliases_are_shown(tmp_path: Path, one: Expert) -> None:
    configure(tmp_path, '[aliases]\n"gpt-*" = ["a", "auto"]\n', entry("a", one))
    environ = os.environ | {"MANYMINDS_HOME": str(tmp_path / "home")}
    shown = {}
    for flags in ([], ["--json"]):
        command = [sys.executable, "-m", "manyminds", "config", *flags]
        ended = subprocess.run(command, capture_output=True, env=environ, cwd=tmp_path, check=True, text=True)
        shown[bool(flags)] = ended.stdout
    (line,) = [line for line in shown[False].splitlines() if "gpt-*" in line]
    assert re.search(r"\ba\b.*\bauto\b.*manyminds\.toml", line)
    assert "gpt-*" in json.dumps(json.loads(shown[True]))
