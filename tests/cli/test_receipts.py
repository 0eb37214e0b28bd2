"""`manyminds verify`, `ledger receipts` and `ledger settle`, as a person calls them."""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from manyminds.ledger import Kept, Ledger
from manyminds.network import jws
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt, Signed, countersign, issue

ANN, BOB, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(3))
REQUEST, ANSWER = b'{"messages":[]}', b"4"
AT = 1_800_000_000.0


def manyminds(*words: str, **more: Any) -> Result:
    return CliRunner().invoke(main, words, **more)


def salted(text: bytes) -> str:
    return hashlib.sha256(b"salt\n" + text).hexdigest()


def made(**changes: Any) -> Signed:
    receipt = Receipt(
        v=1,
        ask=jws.base64url(bytes(16)),
        asker=jws.base64url(ANN.public),
        answerer=jws.base64url(BOB.public),
        nonce="salt",
        request_sha256=salted(REQUEST),
        answer_sha256=salted(ANSWER),
        prompt_tokens=7,
        completion_tokens=3,
        price_usd=0.3,
        experts=("law",),
        sources=("lawyers",),
        at=AT,
    )
    one = issue(BOB, msgspec.structs.replace(receipt, **changes))
    return one.with_(countersign(ANN, one))


def text_of(signed: Signed) -> str:
    return msgspec.json.encode(signed).decode()


@pytest.fixture
def file(here: Path) -> Path:
    (here / "request").write_bytes(REQUEST)
    (here / "answer").write_bytes(ANSWER)
    (here / "receipt.json").write_text(text_of(made()))
    return here / "receipt.json"


# --- verify ----------------------------------------------------------------------------------------


def test_a_receipt_is_verified_with_nothing_but_itself(file: Path) -> None:
    named = ("--asker", ANN.id, "--answerer", BOB.id, "--request", "request", "--answer", "answer")
    result = manyminds("verify", str(file), *named, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert found == {
        "problem": None,
        "at_utc": "2027-01-15T08:00:00.000+00:00",
        "asker": ANN.id,
        "answerer": BOB.id,
        "countersigned": True,
        "price_usd": 0.3,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "experts": ["law"],
        "sources": ["lawyers"],
        "purpose": "",
        "max_share": 1.0,
        "granted_nats": None,
    }
    shown = manyminds("verify", str(file))
    assert (shown.exit_code, "yes" in shown.stdout, "both" in shown.stdout) == (0, True, True)
    assert not (file.parent / "home").exists()


def forms() -> dict[str, str]:
    one = text_of(made())
    as_kept = {"ask": "x", "document": one}
    return {
        "itself": one,
        "a list": f"[{one}]",
        "as text": json.dumps(one),
        "a row of the ledger": json.dumps(as_kept),
        "rows of the ledger": json.dumps([as_kept]),
        "indented": json.dumps(json.loads(one), indent=2),
    }


@pytest.mark.parametrize("form", forms())
def test_files_of_several_forms(here: Path, form: str) -> None:
    result = manyminds("verify", "-", "--json", input=forms()[form])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["asker"] == ANN.id


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--asker", EVE.id, f"it was asked by {ANN.id}"),
        ("--answerer", ANN.id, f"it was answered by {BOB.id}"),
        ("--request", "answer", "it is of another request"),
        ("--answer", "request", "it is of another answer"),
    ],
)
def test_what_does_not_fit_fails(file: Path, option: str, value: str, why: str) -> None:
    result = manyminds("verify", str(file), option, value, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["problem"] == why
    assert why in manyminds("verify", str(file), option, value).stdout


def test_one_bad_receipt_among_good_ones_fails(file: Path) -> None:
    forged = text_of(made()).replace('"payload":"', '"payload":"A')
    file.write_text(f"[{text_of(made())},{forged},{text_of(made(price_usd=0.1))}]")
    result = manyminds("verify", str(file), "--json")
    assert result.exit_code == 1
    assert [bool(one["problem"]) for one in json.loads(result.stdout)] == [False, True, False]
    assert manyminds("verify", str(file)).exit_code == 1


NONE = {"empty": "", "no json": "receipt", "no receipt": "[]", "no utf-8": "\udcff", "deep": "[" * 5000}


@pytest.mark.parametrize("what", NONE)
def test_a_file_without_receipts_is_an_error(here: Path, what: str) -> None:
    (here / "f").write_bytes(NONE[what].encode("utf-8", "surrogateescape"))
    result = manyminds("verify", "f")
    assert result.exit_code == 1
    assert "f " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("text", ["7", "null", "{}", '"x"', "[[]]", '{"document":7}', '{"document":null}'])
def test_what_is_no_receipt_is_a_problem(here: Path, text: str) -> None:
    result = manyminds("verify", "-", "--json", input=text)
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["problem"]
    assert "no: " in manyminds("verify", "-", input=text).stdout


def test_a_file_that_is_not_there(here: Path) -> None:
    result = manyminds("verify", "nothing")
    assert result.exit_code == 1
    assert "Cannot read nothing" in result.stderr


def test_what_others_wrote_commands_no_terminal(file: Path) -> None:
    file.write_text(text_of(made(experts=("\x1b[2J\x07[red]x[/nothing]",), at=AT)))
    result = manyminds("verify", str(file))
    assert result.exit_code == 0, result.output
    assert "[2J [red]x[/nothing]" in result.stdout
    assert "\x1b[2J" not in result.stdout
    file.write_text(text_of(made(at=1e300)))
    assert manyminds("verify", str(file)).exit_code == 1


# --- the ledger ------------------------------------------------------------------------------------


def kept(
    ask: str, role: Any, peer: Identity, usd: float, *, countersigned: bool = True, at_s: float = AT
) -> Kept:
    document = text_of(made(price_usd=usd, at=at_s))
    return Kept(ask, role, peer.id, f"r-{ask}", at_s, 7, 3, usd, countersigned, document)


@pytest.fixture
def filled(home: Path) -> Path:
    (home / "manyminds.toml").write_text(f'[[peer]]\nname = "bob"\nid = "{BOB.id}"\n')
    (home / "home").mkdir()
    ledger = Ledger(f"sqlite:///{home / 'home' / 'ledger.db'}")
    ledger.keep(kept("a", "asked", BOB, 0.3))
    ledger.keep(kept("b", "asked", BOB, 0.1, at_s=AT + 86_400))
    ledger.keep(kept("c", "answered", BOB, 0.7, countersigned=False))
    ledger.keep(kept("d", "answered", EVE, 0.0))
    ledger.close()
    return home


def listed(*words: str) -> list[str]:
    result = manyminds("ledger", "receipts", *words, "--json")
    assert result.exit_code == 0, result.output
    return [row["ask"] for row in json.loads(result.stdout)]


def test_receipts_are_listed(filled: Path) -> None:
    assert listed()[0] == "b"
    assert set(listed()) == set("abcd")
    assert listed("--limit", "1") == ["b"]
    assert set(listed("--peer", "bob")) == set(listed("--peer", BOB.id)) == set("abc")
    assert listed("--peer", EVE.id) == ["d"]
    assert listed("--request", "r-c") == ["c"]
    assert listed("--since", "2027-01-16") == ["b"]
    assert set(listed("--until", "2027-01-16")) == set("acd")
    shown = manyminds("ledger", "receipts").stdout
    assert shown.count("bob") == 3
    assert EVE.id in shown
    assert shown.count("who answered") == 1


def test_what_is_listed_can_be_verified(filled: Path) -> None:
    rows = manyminds("ledger", "receipts", "--json").stdout
    result = manyminds("verify", "-", "--answerer", BOB.id, input=rows)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("yes") == 4


def test_what_is_owed_is_settled_by_peer(filled: Path) -> None:
    result = manyminds("ledger", "settle", "--json")
    found = {one["peer"]: one for one in json.loads(result.stdout)}
    assert found["bob"] == {
        "peer": "bob",
        "id": BOB.id,
        "asked_answers": 2,
        "asked_usd": 0.4,
        "answered_answers": 1,
        "answered_usd": 0.7,
        "not_countersigned": 1,
        "net_usd": 0.3,
        **{f"{role}_{what}_nats": 0.0 for role in ("asked", "answered") for what in ("granted", "settled")},
    }
    assert found[EVE.id]["net_usd"] == 0.0
    later = json.loads(manyminds("ledger", "settle", "--since", "2027-01-16", "--json").stdout)
    assert [(one["peer"], one["asked_usd"], one["answered_usd"]) for one in later] == [("bob", 0.1, 0)]
    shown = manyminds("ledger", "settle").stdout
    assert "+0.300000000" in shown
    assert "1 signed by one side only" in shown


def test_an_owner_sees_what_answers_were_for_and_how_far_they_moved_others(home: Path) -> None:
    with closing(Ledger(f"sqlite:///{home / 'home' / 'ledger.db'}")) as ledger:
        for ask, peer, purpose, settled in (
            ("a", BOB, "law", 0.25),
            ("b", BOB, "law", None),
            ("c", EVE, "", 0),
        ):
            one = kept(ask, "answered", peer, 0.0)
            signed = text_of(made(price_usd=0.0, purpose=purpose, max_share=0.2, nats=0.5))
            terms = {"purpose": purpose, "max_share": 0.2, "granted_nats": 0.5, "settled_nats": settled}
            ledger.keep(msgspec.structs.replace(one, document=signed, **terms))
    rows = json.loads(manyminds("ledger", "settle", "--by-purpose", "--json").stdout)
    found = {(row["id"], row["purpose"]): row for row in rows}
    assert found.keys() == {(BOB.id, "law"), (EVE.id, "")}
    law = found[BOB.id, "law"]
    moved = (law["answered_answers"], law["answered_granted_nats"], law["answered_settled_nats"])
    assert moved == (2, 1.0, 0.75)  # what nobody settled counts whole
    assert found[EVE.id, ""]["answered_settled_nats"] == 0.0
    assert "0.750 of 1.000" in manyminds("ledger", "settle", "--by-purpose").stdout
    shown = manyminds("ledger", "receipts").stdout
    assert shown.count("share 0.2") == 3
    assert shown.count("? of 0.500") == 1
    verified = manyminds("verify", "-", input=manyminds("ledger", "receipts", "--json").stdout).stdout
    assert verified.count("for law") == 2
    assert verified.count("0.5 nats") == 3


def test_an_empty_ledger_has_nothing_to_settle(home: Path) -> None:
    assert json.loads(manyminds("ledger", "settle", "--json").stdout) == []
    assert json.loads(manyminds("ledger", "receipts", "--json").stdout) == []
