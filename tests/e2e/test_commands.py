"""Commands as real processes with real models."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from manyminds import catalog
from tests.e2e.node import borrowed, named, need, wait_until

SMOL = "smollm2-135m"


def start(folder: Path, *words: str, **env: str) -> "subprocess.Popen[str]":
    environ = os.environ | {"MANYMINDS_HOME": str(borrowed(folder))} | env
    return subprocess.Popen(
        [sys.executable, "-m", "manyminds", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=folder,
    )


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ask_streams_the_answer_and_shows_the_panel(tmp_path: Path) -> None:
    need()
    out, err = start(tmp_path, "ask", "What is the capital of Australia?").communicate(timeout=60)
    assert out == "The capital of Australia is Canberra.\n"
    assert all(word in err for word in ("qwen2.5-coder-0.5b", "select", "impact"))


def test_two_at_once_print_json_and_nothing_else(tmp_path: Path) -> None:
    need()
    borrowed(tmp_path)
    both = [start(tmp_path, "ask", "--json", "What is 17 + 26?") for _ in range(2)]
    for found in [json.loads(process.communicate(timeout=90)[0]) for process in both]:
        assert "43" in found["answer"]
        assert found["manyminds"]["panel"][-1]["answer"] == "43"


def test_ctrl_c_ends_ask_and_its_models(tmp_path: Path) -> None:
    need()
    process = start(tmp_path, "ask", "--max-tokens", "2000", "Write a very long story.")
    assert wait_until(lambda: any(named(child) == "smollm2-135m" for child in children(process.pid)))
    models = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in models))


def test_a_killed_parent_takes_its_models_with_it(tmp_path: Path) -> None:
    need()
    process = start(tmp_path, "ask", "--max-tokens", "2000", "Write a very long story.")
    assert wait_until(lambda: any(named(child) == "smollm2-135m" for child in children(process.pid)))
    models = children(process.pid)
    process.kill()
    process.communicate(timeout=20)
    assert wait_until(lambda: not any(named(pid) == "smollm2-135m" for pid in models))


def test_a_damaged_model_is_survived_and_named(tmp_path: Path) -> None:
    need()
    (file,) = catalog.find(SMOL).files
    path = catalog.path_of(borrowed(tmp_path, untaught=True), file)
    path.unlink()
    with path.open("wb") as damaged:  # of the right size, so that only loading finds out
        damaged.truncate(file.bytes)
    process = start(tmp_path, "ask", "--json", "What is 17 + 26?")
    out, err = process.communicate(timeout=60)
    panel = {e["expert"]: e for e in json.loads(out)["manyminds"]["panel"]}
    assert panel[SMOL]["status"] == "failed"
    assert f"manyminds pull {SMOL}" in panel[SMOL]["error"]
    assert panel["qwen2.5-coder-0.5b"]["status"] == "ok"
    assert "Traceback" not in err


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
    }
    nowhere |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PIP_FIND_LINKS": ""}
    process = start(tmp_path, "ask", "Hello", MANYMINDS_HOME=str(tmp_path / "empty"), **nowhere)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("manyminds: ")
    left = [
        p for p in (tmp_path / "empty").rglob("*") if p.is_file() and p.suffix in (".gguf", ".onnx", ".json")
    ]
    assert left == []


def test_serve_ends_on_sigterm_with_status_0(tmp_path: Path) -> None:
    process = start(tmp_path, "serve", "--port", "0", "--tier", "none", "--json")
    assert process.stdout is not None
    assert wait_until(lambda: process.stdout is not None and process.stdout.readline().startswith("{"))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
    shutil.rmtree(tmp_path, ignore_errors=True)
