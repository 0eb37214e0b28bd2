"""The scripts of `examples/`, as a user runs them: they show what they promise, and leave nothing behind."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.node import need, served
from tests.e2e.test_demo import running
from tests.pulled import ENCODER
from tests.pulled import need as need_models

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(300),  # real models, where others want the cores, too
]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CELLS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.read_text().startswith("# %% [markdown]"))


def said(name: str, folder: Path, url: str = "") -> str:
    """What an example prints, from an empty folder for temporary files; that is empty again when it ends.

    It asks the node at `url`, or one that it starts.
    """
    folder = folder / "tmp"
    folder.mkdir()
    environ = os.environ | {"NODE_URL": url}
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ | {"TMPDIR": str(folder)},
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout
    assert "Traceback" not in ended.stdout
    assert not running(folder)
    assert list(folder.iterdir()) == []
    return ended.stdout


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text, re.MULTILINE)]


def test_the_page_lists_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert CELLS == ["openai_client", "own_questions", "private_poll", "publish_model", "streaming_panel"]
    for name in [*CELLS, "network"]:
        assert f"[`{name}.py`]({name}.py)" in page
        assert f"`python examples/{name}.py`" in page
    assert set(re.findall(r"\]\((\w+\.py)\)", page)) == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_is_words_or_code(name: str) -> None:
    """As jupytext reads them: a cell of Markdown holds comments alone, but for the first, a docstring."""
    first, *cells = re.split(r"^# %%", (EXAMPLES / f"{name}.py").read_text(), flags=re.MULTILINE)[1:]
    assert re.fullmatch(r' \[markdown\]\n"""# .*\n"""\n\n', first, re.DOTALL), first
    for cell in cells:
        kind, *lines = cell.rstrip().split("\n")
        assert kind in ("", " [markdown]")
        words = all(line.startswith("#") for line in lines)
        assert words == (kind != ""), cell


def test_openai_s_client_reads_who_is_owed_what(tmp_path: Path) -> None:
    need()
    with served(tmp_path) as node:
        text = said("openai_client", tmp_path, node.url)
    assert f"Asking {node.url}, which has: qwen2.5-coder-0.5b, smollm2-135m\n" in text
    (whole,) = re.findall(r"^auto: (.+)$", text, re.MULTILINE)
    assert f"\nstreamed: {whole}\n" in text
    assert "Canberra" in whole
    (answer,) = re.findall(r"^max, by vote: (.+)$", text, re.MULTILINE)
    assert answer in ("A) in a kitchen", "B) in a mine", "C) on the moon")
    weights = numbers(r"^  \S+ +said '[ABC]', with ([\d.]+) of the votes$", text)
    shares = numbers(r"^  \S+ +([\d.]+), [\d.]+ nats$", text)
    assert len(weights) == len(shares) == 2
    assert sum(weights) == pytest.approx(1, abs=0.002)
    assert sum(shares) == pytest.approx(1, abs=0.002)
    assert numbers(r"^It cost \$([\d.]+);", text) > [0]


def test_a_stream_ends_with_its_panel(tmp_path: Path) -> None:
    need()
    raced, voted = re.split(r"^max: ", said("streaming_panel", tmp_path), flags=re.MULTILINE)
    for text, how in ((raced, "race"), (voted, "vote")):
        pieces = re.findall(r"^ +[\d.]+ s  ('.*'|\".*\")$", text, re.MULTILINE)
        (whole,) = re.findall(rf"^answer, by {how}: (.+)$", text, re.MULTILINE)
        assert "".join(piece[1:-1] for piece in pieces) == whole[1:-1] != ""
        shares = numbers(r"^  owes to \S+ +([\d.]+)$", text)
        assert len(shares) == 2
        assert sum(shares) == pytest.approx(1, abs=0.002)
        assert (len(pieces) > 3) == (how == "race")
    assert re.search(r"^  \S+ .* cancelled$", raced, re.MULTILINE), raced
    assert len(re.findall(r"^  \S+ .* s  '[ABC]'$", voted, re.MULTILINE)) == 2
    watched = [
        re.findall(rf"^ +[\d.]+ s  ([^\s:]+)\S* {what}$", voted, re.MULTILINE)
        for what in ("is asked", "ends: ok")
    ]
    assert sorted(watched[0]) == sorted(watched[1]) == ["qwen2.5-coder-0.5b", "smollm2-135m"]


def test_own_questions_say_who_is_better_and_how_little_they_show(tmp_path: Path) -> None:
    need_models(ENCODER)
    text = said("own_questions", tmp_path)
    rows = list(csv.DictReader(io.StringIO(text.split("...")[0])))
    assert all(row["answer"] in (row["A"], row["B"], row["C"]) for row in rows[:-1])
    assert "1,200 answers came; 0 were here." in text
    points = re.findall(r"^([* ]) (model|network) +(\w+) +([\d.]+)% +([\d.]+)$", text, re.MULTILINE)
    assert {name for _, _, name, _, _ in points} == {
        *("counter", "reader", "scholar"),
        *("max", "cheap", "auto", "fast"),
    }
    best = 0.0
    for mark, _, _, right, _ in points:  # by what they cost
        assert (mark == "*") == (float(right) > best)
        best = max(best, float(right))
    gains = re.findall(r"^  (\w+) +([-+.\d]+) points, ([-+.\d]+) to ([-+.\d]+): (.*)$", text, re.MULTILINE)
    assert [name for name, *_ in gains] == ["max", "cheap", "auto", "fast", "cheap"]
    for _, gain, low, high, verdict in gains:
        assert float(low) <= float(gain) <= float(high)
        assert (verdict == "better") == (float(low) > 0)
    assert (gains[1][-1], gains[-1][-1]) == ("better", "not shown to be better or worse")


def test_a_published_model_is_used_on_its_owner_s_terms(tmp_path: Path) -> None:
    text = said("publish_model", tmp_path)
    allowed, _, others, books = re.split(
        r"^(?=Asked for advertising|\$ manyminds ledger receipts)", text, flags=re.MULTILINE
    )
    assert re.search(r"^  ann +said B$", allowed, re.MULTILINE), allowed
    shares = numbers(r"a share of ([\d.]+),", allowed)
    assert sum(shares) == pytest.approx(1, abs=0.002)
    (hers,) = numbers(r"owed to ann +a share of ([\d.]+)", allowed)
    (weight,) = numbers(r"terms: source 'ann', .*max_share 0\.2, weight ([\d.]+)$", allowed)
    assert 0 < hers <= 0.2
    assert weight < 1
    assert "refused: 403" in text
    assert "ann allows teaching only, and this is for 'advertising'" in text
    assert re.findall(r"^  (\w+) +said B$", others, re.MULTILINE) == ["fern", "moss"]
    assert numbers(r"a share of ([\d.]+),", others) == [0.5, 0.5]
    (moved,) = re.findall(r" bob +answered +teaching .* ([\d.]+) of 6\.000 share 0\.2 +both ", books)
    assert re.search(rf"^bob +teaching .* 1 .* {moved} of 6\.000 ", books, re.MULTILINE), books
    assert len(re.findall(r"^yes .* leafy +for teaching, share 0\.2, 6 nats", books, re.MULTILINE)) == 1


def test_a_private_poll_hides_who_said_what_and_ends_with_its_numbers(tmp_path: Path) -> None:
    text = said("private_poll", tmp_path)
    clear, private, few, again = re.split(
        r"^(?=In private|At epsilon 1|Asked again)", text, flags=re.MULTILINE
    )
    assert re.search(r"^In the clear: B\)", clear)
    assert len(re.findall(r"clinic-\d\d A", clear)) == 3
    assert len(re.findall(r"clinic-\d\d B", clear)) == 9
    assert re.search(r"^In private: (A\) yes|B\) no)\. ", private)
    assert "{'epsilon': 4.0, 'delta': 1e-06, 'polled': 12}" in private
    assert "clinic" not in private
    (hidden,) = re.findall(r"^What is not: (.*)$", private, re.MULTILINE)
    assert {"panel", "attribution", "agreement"} <= set(hidden.split(", "))
    assert few.startswith("At epsilon 1: 422, 12 sources of equal weight are too few")
    assert "It takes 43." in few
    rounds, _, refusal = again.partition("422, ")
    assert rounds.count("A) yes") + rounds.count("B) no") == 2
    assert "12 more have not that much left" in refusal
    accounts = re.findall(r"^clinic-\d\d +([\d.]+) +8 +1e-06 ", refusal, re.MULTILINE)
    assert len(accounts) == 12
    assert all(4 < float(epsilon) <= 8 for epsilon in accounts)
