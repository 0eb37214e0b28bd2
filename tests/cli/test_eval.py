"""`manyminds eval` and `manyminds train` as a person calls them."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds import archive, artefact
from manyminds.cli import main
from manyminds.cli.train import figures, show
from tests.evals.test_questions import written
from tests.evals.test_replay import SPLITS, made_up
from tests.learn.worlds import hand_made

THREE = {"gpt-a": 0.6, "b": 0.8, "c": 0.7}

pytestmark = pytest.mark.usefixtures("weighed_quickly")


@pytest.fixture
def folder(here: Path) -> Path:
    """With one set, and a home without an encoder."""
    made_up(here / "toy", THREE)
    return here


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_eval_prints_a_table(folder: Path) -> None:
    shown = call("eval", "toy")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(
        "toy: 3 models, 60 test questions, learnt from 60, seed 0\nbest single: b\n"
    )
    rows = [line.split("  ")[0].strip() for line in shown.stdout.splitlines()]
    for name in (
        "best single",
        "first parsed",
        "majority vote",
        "log-odds vote",
        "oracle",
        "max",
        "cheap",
        "auto",
        "fast",
    ):
        assert name in rows
    assert "manyminds pull all-minilm-l6-v2" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_eval_prints_json(folder: Path) -> None:
    shown = call("eval", "toy", "--json", "--seed", "2", "--exclude", "gpt-*", "--category", "c1")
    result = json.loads(shown.stdout)
    assert (result["set"], result["seed"], result["category"], result["exclude"]) == (
        "toy",
        2,
        "c1",
        ["gpt-*"],
    )
    assert result["models"] == 2
    assert {"best_single", "baselines", "max", "cheap", "auto", "fast", "frontier", "co_failure"} <= set(
        result
    )


def test_a_set_without_texts_needs_no_encoder(folder: Path) -> None:
    made_up(folder / "bare", THREE)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "bare" / "questions.parquet")
    bare = table.drop_columns(["prompt"]).append_column("prompt", pa.nulls(len(table)))
    pq.write_table(bare, folder / "bare" / "questions.parquet")
    shown = call("eval", "bare", "--json")
    assert shown.exit_code == 0, shown.output
    assert shown.stderr == ""


def test_a_folder_that_is_no_set_is_one_sentence(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "file").write_text("answers")
    for command in ("eval", "train"):
        for name in ("absent", "empty", "file"):
            shown = call(command, name)
            assert shown.exit_code == 1
            assert shown.stdout == ""
            assert shown.stderr.startswith("manyminds: ")
            assert name in shown.stderr
            assert shown.stderr.count("\n") == 1
        assert "absent does not exist: give the folder of a set" in call(command, "absent").stderr


def test_a_bad_option_is_one_sentence(folder: Path) -> None:
    for words, said in (
        (("--category", "nope"), "There are: c0, c1"),
        (("--exclude", "nope*"), "There are: b, c, gpt-a"),
        (("--exclude", "*"), "all 3 models are excluded"),
        (("--exclude", "[bc]"), "only gpt-a is left"),
    ):
        shown = call("eval", "toy", *words)
        assert shown.exit_code == 1
        assert shown.stderr.count("\n") == 1
        assert said in shown.stderr
    assert call("eval", "toy", "--seed", "-1").exit_code == 2
    assert call("eval").exit_code == 2


def test_train_writes_an_artefact_that_loads(folder: Path) -> None:
    shown = call("train", "toy", "--out", "made/learnt.npz")
    assert shown.exit_code == 0, shown.output
    made = artefact.load(folder / "made" / "learnt.npz")
    assert made.about["set"] == "toy"
    assert made.experts == ("b", "c", "gpt-a")
    lines = shown.stdout.splitlines()
    assert lines[0] == str(folder / "made" / "learnt.npz")
    assert lines[1] == "3 experts: b, c, gpt-a"
    assert f"{len(made.parts[0].plans)} plans:" in lines


def test_train_writes_into_the_home_and_says_so_in_json(folder: Path) -> None:
    shown = call("train", "toy", "--json", "--exclude", "gpt-a", "--seed", "4")
    found = json.loads(shown.stdout)
    assert found["path"] == str(folder / "home" / "artefact.npz")
    assert (found["experts"], found["about"]["seed"]) == (["b", "c"], 4)
    assert len(found["plans"]) == len(artefact.load(Path(found["path"])).parts[0].plans)
    policies = [policy for plan in found["plans"] for policy in plan["policies"]]
    assert sorted(policies) == ["auto", "cheap", "fast", "max"]


OF_WAYS = {  # what is printed of sets with ways of asking or kinds of questions, which this one has not
    "eval": {
        "categories",
        "leave_category",
        "members",
        "self_ensemble",
        "max.gain_over_best_per_category",
        "max.gain_over_best_per_category_ci95",
    },
    "train": {"parts"},
}


@pytest.mark.parametrize("command", ["eval", "train"])
def test_every_key_that_is_printed_is_documented(folder: Path, command: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "learning.md").read_text(encoding="utf-8")
    table = page.partition(f"| `{command} --json` | |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`([\w.]+)`", row)}
    printed = json.loads(call(command, "toy", "--json").stdout)
    parts = {"auto": printed["auto"], "frontier": printed["frontier"][0]} if command == "eval" else {}
    parts = parts or {"plans": printed["plans"][0]}
    own = {*printed, *(f"{name}.{key}" for name, part in parts.items() for key in part)}
    assert documented == own | OF_WAYS[command]


def test_the_same_seed_makes_the_same_bytes(folder: Path) -> None:
    for name in ("one", "two"):
        assert call("train", "toy", "--out", name).exit_code == 0
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


def test_an_artefact_that_cannot_be_written_is_refused_before_learning(folder: Path) -> None:
    (folder / "precious.csv").write_text("question,answer\n")
    with zipfile.ZipFile(folder / "else.zip", "w") as packed:
        packed.writestr("a.txt", "mine")
    (folder / "broken").symlink_to("nowhere")
    before = {path: path.lstat().st_mtime_ns for path in folder.iterdir()}
    for out, said in (
        ("precious.csv/learnt.npz", "cannot be written"),
        ("precious.csv", "is no artefact"),
        ("else.zip", "is no artefact"),
        ("broken", "no regular file"),
        (os.devnull, "no regular file"),
    ):
        shown = call("train", "toy", "--out", out)
        assert (shown.exit_code, shown.stdout) == (1, "")
        (line,) = shown.stderr.splitlines()  # and none about the encoder: nothing has begun
        assert line.startswith(f"manyminds: {out} ")
        assert said in line
    assert {path: path.lstat().st_mtime_ns for path in folder.iterdir()} == before
    assert call("train", "toy", "--out", "toy").exit_code == 2


def test_what_cannot_be_written_in_the_end_has_its_own_name(folder: Path) -> None:
    name = "a" * 250  # a part of it, beside it, has a longer one
    line = call("train", "toy", "--out", name).stderr.splitlines()[-1]
    assert line == f"manyminds: Cannot read or write {name}: File name too long."


def test_a_folder_that_may_not_be_written_is_refused_before_learning(folder: Path) -> None:
    place = folder / "shut"
    place.mkdir(mode=0o555)
    if os.access(place, os.W_OK):  # an administrator may write everywhere but where the kernel says
        place = Path("/proc/self")
    if os.access(place, os.W_OK) or not place.exists():
        pytest.skip("this user may write everywhere")
    (line,) = call("train", "toy", "--out", str(place / "a" / "learnt.npz")).stderr.splitlines()
    assert line.startswith(f"manyminds: {place}/a/learnt.npz cannot be written: {place} ")


def test_what_was_learnt_before_is_replaced_even_where_it_is_damaged(folder: Path) -> None:
    learnt = folder / "home" / "artefact.npz"
    learnt.parent.mkdir()
    learnt.write_text("damaged")
    assert call("train", "toy").exit_code == 0
    old = learnt.read_bytes()
    assert archive.is_archive(learnt)
    assert call("train", "toy", "--out", str(learnt), "--seed", "1").exit_code == 0
    assert learnt.read_bytes() != old


def test_a_policy_that_chooses_anew_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    choice = dict.fromkeys(("auto", "cheap", "fast", "max"), 0)
    made = hand_made({"a": 0.8, "b": 0.7}, choice=choice, prices={"cheap": 0.5})
    assert figures(made)["prices"] == {"cheap": 0.5}
    show(made)
    *_, line = capsys.readouterr().out.splitlines()
    assert line == "cheap chooses among all of these for each question anew; its row is its best for all."
    show(hand_made({"a": 0.8, "b": 0.7}, choice=choice))
    assert "anew" not in capsys.readouterr().out


# --- questions of one's own ------------------------------------------------------------------------

OPTIONS = {"A": "red", "B": "green", "C": "blue", "D": "white"}


@pytest.fixture
def own(home: Path) -> Path:
    """With q.csv, and three experts who know their answers to it."""
    made_up(home / "toy", THREE, kind="option")
    (home / "q.csv").write_bytes(written([row(i) for i in range(120)]))
    configure(home, {name: name for name in THREE})
    return home


def row(i: int) -> dict[str, str]:
    shared = {"question": f"Qq{i}", "answer": "A", "split": SPLITS[i % 6], "category": f"c{i // 6 % 2}"}
    return {"id": f"q{i}", **shared, **OPTIONS}


def configure(folder: Path, experts: Mapping[str, str]) -> None:
    """Experts by name, each with the model of the set that it plays."""
    entries = [
        f'[[expert]]\nname = "{name}"\nkind = "recorded"\npath = "toy"\nmodel = "{model}"\n'
        for name, model in experts.items()
    ]
    (folder / "manyminds.toml").write_text("\n".join(entries))


def test_eval_asks_ones_own_questions(own: Path) -> None:
    shown = call("eval", "q.csv", "--json")
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout)
    assert (result["set"], result["models"], result["n_test"], result["kind"]) == (
        "q.manyminds",
        3,
        60,
        "option",
    )
    assert result["best_single"]["model"] == "b"
    assert "Asking b, c, gpt-a: 120 questions each, into q.manyminds" in shown.stderr
    assert "360 answers came; 0 were here." in shown.stderr
    again = call("eval", "q.manyminds", "--json")
    assert {**json.loads(again.stdout), "seconds": 0} == {**result, "seconds": 0}


def test_a_second_run_asks_only_what_is_missing(own: Path) -> None:
    assert call("eval", "q.csv", "--into", "kept/here").exit_code == 0
    configure(own, {name: name for name in THREE} | {"d": "c"})
    shown = call("eval", "q.csv", "--into", "kept/here", "--json")
    assert "120 answers came; 360 were here." in shown.stderr
    assert json.loads(shown.stdout)["models"] == 4
    assert not (own / "q.manyminds").exists()


def test_who_is_left_out_is_not_asked(own: Path) -> None:
    shown = call("eval", "q.csv", "--json", "--exclude", "gpt-*", "--category", "c1")
    assert shown.exit_code == 0, shown.output
    assert "Asking b, c: 60 questions each" in shown.stderr
    result = json.loads(shown.stdout)
    assert (result["models"], result["exclude"], result["category"]) == (2, ["gpt-*"], "c1")


def test_who_is_left_out_stays_in_the_set(own: Path) -> None:
    whole = json.loads(call("eval", "q.csv", "--json").stdout)
    answers = (own / "q.manyminds" / "answers.parquet").read_bytes()
    part = call("eval", "q.csv", "--json", "--exclude", "gpt-*", "--category", "c1")
    assert "0 answers came; 120 were here." in part.stderr
    assert "missing" not in part.stderr
    found = json.loads(part.stdout)
    assert (found["models"], found["n_test"], found["exclude"]) == (2, 30, ["gpt-*"])
    assert (own / "q.manyminds" / "answers.parquet").read_bytes() == answers
    assert json.loads(call("train", "q.manyminds", "--json").stdout)["experts"] == ["b", "c", "gpt-a"]
    again = json.loads(call("eval", "q.manyminds", "--json").stdout)
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}


def test_a_damaged_artefact_keeps_nobody_from_asking(own: Path) -> None:
    (own / "home").mkdir()
    (own / "home" / "artefact.npz").write_text("damaged")
    shown = call("eval", "q.csv", "--json")
    assert shown.exit_code == 0, shown.output


def test_the_answers_to_a_file_are_in_its_folder(own: Path) -> None:
    assert call("eval", "q.csv").exit_code == 0
    shown = call("train", "q.csv")
    assert shown.stderr == (
        "manyminds: q.csv has questions alone; the answers are in a folder: use q.manyminds.\n"
    )


def test_what_is_missing_is_told_with_its_reason(own: Path) -> None:
    rows = [{**row(i), "id": f"q{i + 9}", "question": f"Other {i}"} for i in range(111, 114)]
    (own / "q.csv").write_bytes(written([row(i) for i in range(120)] + rows))
    shown = call("eval", "q.csv", "--json")
    assert shown.exit_code == 0, shown.output
    assert "b: 3 of 123 answers are missing: b is a recording and only knows" in shown.stderr


def test_words_are_graded_by_exact_match_and_that_is_told(own: Path) -> None:
    rows = [{k: v for k, v in row(i).items() if k not in OPTIONS} for i in range(120)]
    (own / "q.csv").write_bytes(written(rows))
    shown = call("eval", "q.csv", "--json")
    assert "120 of 120 questions are graded by exact match" in shown.stderr


def test_what_cannot_be_asked_is_one_sentence_and_asks_nobody(own: Path) -> None:
    (own / "few.csv").write_bytes(written([row(i) for i in range(12)]))
    (own / "odd.csv").write_text("a,b\n1,2\n")
    for words, said in (
        (("absent.csv",), "absent.csv"),
        (("few.csv",), "too few questions"),
        (("odd.csv",), "`question` and `answer`"),
        (("q.csv", "--exclude", "nobody*"), "manyminds experts list"),
        (("q.csv", "--exclude", "[bc]"), "Only gpt-a can be asked"),
        (("q.csv", "--category", "c9"), "There are: c0, c1"),
        (("q.csv", "--into", "toy"), "was not recorded here"),
    ):
        shown = call("eval", *words)
        assert (shown.exit_code, shown.stdout) == (1, ""), words
        assert said in shown.stderr
        assert shown.stderr.splitlines()[-1].startswith("manyminds: ")
    shown = call("train", "q.csv")
    assert shown.exit_code == 1
    assert "`manyminds eval q.csv`" in shown.stderr
    assert call("eval", "toy", "--into", "elsewhere").exit_code == 2
    assert not (own / "q.manyminds").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_what_was_answered(own: Path) -> None:
    with (own / "manyminds.toml").open("a") as file:  # never answers: it listens to nobody
        file.write('[[expert]]\nname = "deaf"\nurl = "http://127.0.0.1:1/v1"\n')
    words = [sys.executable, "-m", "manyminds", "eval", "q.csv"]
    with subprocess.Popen(words, cwd=own, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        assert run.stderr.readline().startswith("Asking ")
        journal = own / "q.manyminds" / "journal.jsonl"
        while run.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") == 360):
            with suppress(subprocess.TimeoutExpired):
                run.wait(0.05)
        run.send_signal(signal.SIGINT)
        *rests, last = run.stderr.read().splitlines()
        assert last == "Stopped. What was answered is kept in q.manyminds: the same command goes on."
        assert all(line.startswith("deaf is not asked for ") for line in rests), rests  # on a slow machine
    assert run.returncode == 130
    for command in ("train", "eval"):
        assert call(command, "q.manyminds").stderr == (
            "manyminds: q.manyminds is not finished: run `manyminds eval q.csv` to its end first.\n"
        )
    configure(own, {name: name for name in THREE})
    assert "0 answers came; 360 were here." in call("eval", "q.csv").stderr


# --- ways of asking, and mixed kinds -----------------------------------------------------------------


def test_members_have_a_table_of_their_own(folder: Path) -> None:
    made_up(folder / "ways", {"a:cot": 0.6, "a:code": 0.8, "b:cot": 0.7}, n=60)
    shown = call("eval", "ways")
    assert shown.exit_code == 0, shown.output
    rows = [line.split("  ")[0].strip() for line in shown.stdout.splitlines()]
    for name in ("model, alone", "a:code", "a, in all ways", "b:cot", "b, in all ways", "best per category"):
        assert name in rows


def test_categories_have_a_table_of_their_own(folder: Path) -> None:
    shown = call("eval", "toy", "--by-category")
    assert shown.exit_code == 0, shown.output
    rows = [re.split(r"\s{2,}", line.strip()) for line in shown.stdout.splitlines()]
    assert ["category", "questions", "max", "cheap", "best single", "most accurate", "who"] in rows
    assert [row[1] for row in rows if row[0] in ("c0", "c1")] == ["20", "40"]


def test_a_category_is_left_out_and_said(folder: Path) -> None:
    shown = call("eval", "toy", "--leave-category", "c1")
    assert shown.stdout.startswith("toy, without c1: 3 models, 20 test questions, learnt from 40, seed 0\n")
    found = json.loads(call("eval", "toy", "--leave-category", "c1", "--exclude", "b", "--json").stdout)
    assert (found["leave_category"], found["exclude"], found["models"]) == (["c1"], ["b"], 2)
    shown = call("eval", "toy", "--leave-category", "nope")
    assert (shown.exit_code, shown.stderr.count("\n")) == (1, 1)
    (folder / "q.csv").write_text("question,answer\n")
    shown = call("eval", "q.csv", "--leave-category", "c1")
    assert shown.exit_code == 2
    assert "--leave-category goes with DIR" in shown.stderr


def test_what_was_learnt_is_shown_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    both = artefact.Artefact(
        (
            *hand_made({"x": 0.8, "y": 0.7}, about={"questions": 1200}).parts,
            *hand_made({"y": 0.7, "z": 0.6}, about={"questions": 80}, kinds=("text",)).parts,
        )
    )
    show(both)
    lines = capsys.readouterr().out.splitlines()
    at = [lines.index(f"{said}:") for said in ("1,200 questions of kind option", "80 questions of kind text")]
    assert at == sorted(at)
    assert lines[at[1] + 1] == "2 experts: y, z"
    found = json.loads(json.dumps(figures(both)))
    assert found["experts"] == ["x", "y", "z"]
    told, verdicts = found["parts"]
    assert (told["kinds"], verdicts["kinds"]) == (["option"], ["text"])
    assert verdicts["best_single"] == "y"
    assert set(figures(artefact.Artefact(both.parts[:1]))) == {"experts", "best_single", "plans", "prices"}
