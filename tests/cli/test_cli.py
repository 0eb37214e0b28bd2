"""Commands as a person calls them, in this process; the real process is in tests/e2e."""

import json
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from manyminds import artefact, catalog, sandbox
from manyminds.cli import main
from manyminds.errors import DataError
from manyminds.ledger import Ledger
from tests.e2e.node import borrowed, need
from tests.learn.worlds import hand_made
from tests.ledger.samples import record


def manyminds(*words: str, **more: Any) -> Result:
    return CliRunner().invoke(main, words, **more)


def test_help_names_every_command() -> None:
    shown = manyminds("--help").stdout
    assert all(name in shown for name in ("ask", "bench", "config", "doctor", "experts", "pull", "serve"))


def test_config_shows_where_each_value_comes_from(home: Path) -> None:
    (home / "manyminds.toml").write_text("[server]\nport = 9001\n")
    found = {s["key"]: s for s in json.loads(manyminds("config", "--json").stdout)}
    assert found["server.port"]["value"] == 9001
    assert found["server.port"]["origin"].startswith("file")
    assert found["local.tier"]["origin"] == "environment MANYMINDS_LOCAL_TIER"
    assert found["server.host"]["origin"] == "default"


def test_config_never_shows_a_secret(home: Path) -> None:
    url = "http://user:s3cret@127.0.0.1:9/v1?api_key=s3cret"
    (home / "manyminds.toml").write_text(f'[[expert]]\nname = "x"\nurl = "{url}"\n')
    for words in (("config",), ("config", "--json"), ("doctor",), ("experts", "list", "--json")):
        result = manyminds(*words)
        assert "s3cret" not in result.stdout + result.stderr


def test_an_unknown_key_names_the_nearest(home: Path) -> None:
    (home / "manyminds.toml").write_text("[server]\nprot = 9001\n")
    result = manyminds("config")
    assert result.exit_code == 1
    assert "prot" in result.stderr
    assert "port" in result.stderr
    assert result.stderr.count("\n") == 1


def test_experts_lists_what_is_configured_and_what_could_be(home: Path) -> None:
    (home / "manyminds.toml").write_text(
        '[[expert]]\nname = "mine"\nurl = "http://127.0.0.1:9/v1"\nsource = "alice"\n'
    )
    found = json.loads(manyminds("experts", "list", "--json").stdout)
    assert [(e["name"], e["source"]) for e in found["experts"]] == [("mine", "alice")]
    assert "smollm2-135m" in [m["name"] for m in found["not_running"]]
    assert found["experts"][0]["ratings"]["week"]["calls"] == 0
    assert "mine" in manyminds("experts", "list").stdout


def test_experts_lists_what_was_measured_beside_what_is_claimed(home: Path) -> None:
    entry = (
        '[[expert]]\nname = "a"\nurl = "http://127.0.0.1:9/v1"\naccuracy = 0.99\nprice_out_usd_per_m = 1\n'
    )
    (home / "manyminds.toml").write_text(entry)
    with closing(Ledger(f"sqlite:///{home / 'home' / 'ledger.db'}")) as ledger:
        record(ledger, key="k")
    row = manyminds("experts", "list").stdout.splitlines()[1]
    assert "0.99 → 1.00 of 1" in row
    assert "1 → 0.1 " in row
    assert "0.222 → 111" in row
    assert "100.0%" in row


def test_a_model_without_room_is_not_to_be_pulled_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYMINDS_HOME", str(borrowed(home)))
    monkeypatch.setenv("MANYMINDS_LOCAL_TIER", "starter")
    monkeypatch.setenv("MANYMINDS_LOCAL_MAX_MEMORY_GB", "0.01")
    need()
    said = {
        line.split()[2]: line
        for line in manyminds("experts", "list").stderr.splitlines()
        if "not running" in line
    }
    assert "it is here" in said["smollm2-135m"]
    assert "manyminds pull gemma-3-270m" in said["gemma-3-270m"]


def test_doctor_finds_what_is_wrong(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (home / "manyminds.toml").write_text(
            f"[server]\nport = {port}\n"
            '[[expert]]\nname = "x"\nurl = "http://127.0.0.1:1/v1"\nkey_env = "NO_SUCH_KEY"\n'
        )
        result = manyminds("doctor", "--json")
    failed = {check["check"]: check["found"] for check in json.loads(result.stdout) if not check["ok"]}
    assert result.exit_code == 1
    assert set(failed) == {"port", "key of x", "x"}
    assert "NO_SUCH_KEY" in failed["key of x"]


def test_doctor_says_what_to_do_about_files_of_ones_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gone", "taken", "large"):
        (home / f"{name}.gguf").write_bytes(b"GGUF")
        catalog.add_own(home / "home", home / f"{name}.gguf", name)
    (home / "gone.gguf").unlink()
    catalog.record_of(home / "home", "taken").rename(catalog.record_of(home / "home", "auto"))
    with (home / "large.gguf").open("r+b") as file:
        file.truncate(4_000_000_000)
    monkeypatch.setenv("MANYMINDS_LOCAL_TIER", "starter")
    checks = json.loads(manyminds("doctor", "--json").stdout)
    failed = {check["check"]: check["found"] for check in checks if not check["ok"]}
    assert f"gone.gguf is gone: put it back, or remove {home}" in failed["gone"]
    assert "auto.json" in failed["auto"]
    assert "large" not in failed
    assert "raise local.max_memory_gb" in failed["memory"]


def test_doctor_says_what_to_do_about_a_home_that_cannot_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "home"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # an administrator may write everywhere but where the kernel says
        folder = Path("/proc/self")
    if os.access(folder, os.W_OK) or not folder.exists():
        pytest.skip("this user may write everywhere")
    monkeypatch.setenv("MANYMINDS_HOME", str(folder))
    (check,) = [c for c in json.loads(manyminds("doctor", "--json").stdout) if c["check"] == "home"]
    assert not check["ok"]
    assert "cannot be written" in check["found"]
    assert "MANYMINDS_HOME" in check["found"]


def test_doctor_says_what_was_learnt_and_whether_it_is_whole(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (home / "manyminds.toml").write_text(f"[server]\nport = {port}\n")

    def found() -> tuple[int, bool, str]:
        result = manyminds("doctor", "--json")
        (check,) = [c for c in json.loads(result.stdout) if c["check"] == "artefact"]
        return result.exit_code, check["ok"], check["found"]

    assert found() == (0, True, "what came with manyminds, learnt from 'local', knows 0 of 0 experts")
    path = home / "home" / "artefact.npz"
    artefact.save(hand_made({"x": 0.8, "y": 0.7}, about={"set": "q.manyminds"}), path)
    assert found() == (0, True, f"{path}, learnt from 'q.manyminds', knows 0 of 0 experts")
    path.write_bytes(path.read_bytes()[:-30])
    status, ok, said = found()
    assert (status, ok) == (1, False)
    assert "`manyminds train DIR`" in said
    toy = '[[expert]]\nname = "x"\nkind = "recorded"\npath = "toy"\nmodel = "m"\n'
    artefact.save(hand_made({"x": 0.8, "y": 0.7}, about={"set": "q.manyminds"}), path)
    (home / "manyminds.toml").write_text(f"[server]\nport = {port}\n" + toy + toy.replace('"x"', '"z"'))
    assert "knows 1 of 2 experts" in found()[2]


def test_doctor_is_content_with_a_clean_machine(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (home / "manyminds.toml").write_text(f"[server]\nport = {port}\n")
    result = manyminds("doctor")
    assert result.exit_code == 0, result.stdout


def test_serve_says_that_its_port_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = manyminds("serve", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "--port" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_key_is_one_sentence(home: Path) -> None:
    (home / "manyminds.toml").write_text(
        '[[expert]]\nname = "x"\nurl = "http://127.0.0.1:1/v1"\nkey_env = "NO_SUCH_KEY"\n'
    )
    result = manyminds("ask", "Hello")
    assert result.exit_code == 1
    assert "NO_SUCH_KEY" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ask",), "no question"),
        (("ask", "Hi"), "no expert"),
        (("ask", "-m", "nobody", "Hi"), "nobody"),
        (("ask", "--deadline-s", "-1", "Hi"), "deadline_s"),
        (("ask", "--strategy", "guess", "Hi"), "strategy"),
        (("pull", "no-such-model"), "no-such-model"),
        (("pull", "--gguf", "absent.gguf"), "absent.gguf"),
        (("pull", "--gguf", "absent.gguf", "--name", "auto"), "policy"),
        (("ask", b"\xff?".decode("utf-8", "surrogateescape")), "UTF-8"),
        (("--config", "absent.toml", "config"), "absent.toml"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_1(home: Path, words: tuple[str, ...], said: str) -> None:
    result = manyminds(*words, input="")
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert result.stderr.startswith("manyminds: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_question_must_be_utf_8(home: Path) -> None:
    result = manyminds("ask", input=b"caf\xe9?")
    assert result.exit_code == 1
    assert "not UTF-8" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_home_that_is_a_file_is_said_once(home: Path) -> None:
    (home / "home").write_text("in the way")
    result = manyminds("pull", "--tier", "starter")
    assert result.exit_code == 1
    assert result.stderr.count("set MANYMINDS_HOME") == 1


def test_wrong_usage_is_exit_2() -> None:
    assert manyminds("ask", "--no-such-flag").exit_code == 2
    assert manyminds("no-such-command").exit_code == 2
    assert manyminds("pull", "--name", "x").exit_code == 2
    assert manyminds("pull", "--gguf", "a.gguf", "b.gguf").exit_code == 2


def test_a_file_of_ones_own_is_added(home: Path) -> None:
    (home / "tiny.gguf").write_bytes(b"GGUF" + bytes(100))
    added = json.loads(manyminds("pull", "--gguf", str(home / "tiny.gguf"), "--json").stdout)
    assert added["name"] == "tiny"
    (home / "not.gguf").write_bytes(b"<html>")
    refused = manyminds("pull", "--gguf", str(home / "not.gguf"))
    assert refused.exit_code == 1
    assert "GGUF" in refused.stderr


def test_doctor_says_whether_programs_can_be_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking() -> None:
        raise DataError("There is no bubblewrap: install it.")

    monkeypatch.setattr(sandbox, "need", lacking)
    checks = {check["check"]: check for check in json.loads(manyminds("doctor", "--json").stdout)}
    assert checks["programs"]["ok"]  # others still answer
    assert "nobody is asked for one" in checks["programs"]["found"]
    assert "There is no bubblewrap: install it." in checks["programs"]["found"]
