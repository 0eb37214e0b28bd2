"""The test vectors of docs/protocol.md: whoever writes a node in another language can check all of them.

`python -m tests.network.test_protocol` writes them anew, after a change of the protocol.
"""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785

from manyminds.network import card, jws, receipt
from manyminds.network.ask import Accepted, Ask, Once, open_ask, seal_ask
from manyminds.network.card import Claim, Claims, Skill, Terms, Vouch
from manyminds.network.frames import (
    Answered,
    AnswerHash,
    Cited,
    Failed,
    Frame,
    Grounded,
    Said,
    Sealer,
    Told,
    request_hash,
)
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt
from manyminds.network.transport import pack
from manyminds.network.withdrawal import Withdrawal

FILE = Path(__file__).resolve().parents[2] / "docs" / "protocol.json"
NOW = 1_800_000_000
ASKER, ANSWERER = (Identity.of_seed(bytes([i]) * 32) for i in (1, 2))
REPLY_KEY, RUN = bytes(range(32)), bytes(range(7))
REQUEST = b'{"model":"auto","messages":[{"role":"user","content":"Which way?"}]}'
NONCE = jws.base64url(bytes(16))
TERMS = Terms(("research",), nodes=(f"{ASKER.id[:4]}*",), max_share=0.25, budget_nats=20.0, period="day")
FRAMES = (Frame(), Frame(text="This "), Frame(text="way."), Frame(chunk=msgspec.Raw(b'{"choices":[]}')))


def the_card() -> bytes:
    says = Claims(
        *("", "", 1_800_000_000_000, NOW + 900, (1,)),
        experts=3,
        encoder="00" * 32,
        skills=(Skill(base64.b64encode(bytes([127, 0, 129, 0])).decode(), 2, "ways"),),
        claims=(Claim(0.7),),
        vouches=(Vouch(ASKER.id, 0.5),),
        price_out_usd_per_m=1.5,
    )
    return card.made(ANSWERER, says, name="sage", words=["ways"], url="https://sage.example", version="1")


def the_withdrawal() -> bytes:
    """The same node, which takes itself back."""
    word = Withdrawal(1_800_000_060_000, whole=True, sources=("owner",))
    says = Claims(*("", "", 1_800_000_060_000, NOW + 960, (1,)), experts=0, withdrawal=word)
    return card.made(ANSWERER, says, name="sage", version="1")


def the_ask() -> Ask:
    return Ask(
        v=1,
        id=jws.base64url(bytes(range(16))),
        key=jws.base64url(ASKER.public),
        to=ANSWERER.id,
        at=float(NOW),
        reply_key=jws.base64url(REPLY_KEY),
        deadline_s=10.0,
        budget_usd=0.001,
        request=msgspec.Raw(REQUEST),
        nonce=NONCE,
        hops=3,
        visited=(ASKER.id,),
    )


def the_ask_on_terms() -> Ask:
    """As it is asked where the card has terms, of which the ask above says nothing."""
    accepted = Accepted(0.25, 2.0, 0.5)
    return msgspec.structs.replace(the_ask(), purpose="research", terms=accepted)


def the_receipt_on_terms() -> Receipt:
    return msgspec.structs.replace(the_receipt(), purpose="research", max_share=0.25, nats=1.5)


def the_receipt() -> Receipt:
    said = AnswerHash(NONCE)
    for frame in FRAMES:
        said.take(frame)
    return Receipt(
        v=1,
        ask=the_ask().id,
        asker=jws.base64url(ASKER.public),
        answerer=jws.base64url(ANSWERER.public),
        nonce=NONCE,
        request_sha256=request_hash(REQUEST, NONCE),
        answer_sha256=said.hex,
        prompt_tokens=4,
        completion_tokens=2,
        price_usd=0.000003,
        experts=("a", "b"),
        sources=("owner",),
        at=float(NOW),
    )


def vectors(sealed_ask: str) -> dict[str, Any]:
    """All of them; a sealed ask is another each time, so that one is given."""
    shown = json.loads(the_card())
    unsigned = {name: value for name, value in shown.items() if name != "signatures"}
    issued = receipt.issue(ANSWERER, the_receipt())
    counter = receipt.countersign(ASKER, issued)
    said = Said("a", "owner", 0.6)
    answered = Answered("stop", msgspec.json.encode(issued).decode(), 0.9, (said,))
    on_terms = receipt.issue(ANSWERER, the_receipt_on_terms())
    granted = Answered("stop", msgspec.json.encode(on_terms).decode(), nats=1.5)
    cited = Cited("owner", "docs", "ways.md", "Ways > North", 3, "This way.", 0.75)
    grounds = Grounded(0.8, (cited, Cited("owner")))
    cites = Answered("stop", msgspec.json.encode(issued).decode(), 0.8, grounds=grounds)
    declines = Answered("stop", msgspec.json.encode(issued).decode(), grounds=Grounded(0.05, declined=True))
    ends = [Frame(answered=answered), Frame(failed=Failed("No.", "forbidden", 403)), Frame(answered=granted)]
    frames = [*FRAMES, *ends, Frame(answered=cites), Frame("They do not say.", answered=declines)]
    told = [Told(granted=512), Told(cancel=True), Told(countersigned=msgspec.to_builtins(counter))]
    told.append(
        Told(countersigned=msgspec.to_builtins(receipt.countersign(ASKER, on_terms)), settled_nats=0.125)
    )
    from_answerer, from_asker = (Sealer(REPLY_KEY, answers=at, run=RUN) for at in (True, False))
    return {
        "identities": [
            {
                "seed_hex": (bytes([i]) * 32).hex(),
                "public_hex": one.public.hex(),
                "exchange_hex": one.exchange.hex(),
                "id": one.id,
            }
            for i, one in ((1, ASKER), (2, ANSWERER))
        ],
        "card": {"canonical": rfc8785.dumps(unsigned).decode(), "signed": shown, "read_at": NOW},
        "withdrawal": {"signed": json.loads(the_withdrawal()), "read_at": NOW + 60},
        "ask": {
            "json": msgspec.json.encode(the_ask()).decode(),
            "sealed_base64": sealed_ask,
            "heard_at": NOW + 1,
        },
        "frames": {
            "reply_key_hex": REPLY_KEY.hex(),
            "run_hex": RUN.hex(),
            "answer": [_both(frame, from_answerer.seal(frame)) for frame in frames],
            "told": [_both(one, pack(the_ask().id, from_asker.seal(one))) for one in told],
        },
        "receipt": {
            "request": REQUEST.decode(),
            "answer": "".join(f.text for f in FRAMES) + '{"choices":[]}',
            "json": msgspec.json.encode(the_receipt()).decode(),
            "signed": json.loads(msgspec.json.encode(issued)),
            "countersigned": json.loads(msgspec.json.encode(issued.with_(counter))),
        },
        "terms": {
            "card": json.loads(msgspec.json.encode(TERMS)),
            "ask": msgspec.json.encode(the_ask_on_terms()).decode(),
            "receipt": msgspec.json.encode(the_receipt_on_terms()).decode(),
            "signed": json.loads(msgspec.json.encode(on_terms)),
        },
    }


def _both(message: Any, sealed: bytes) -> dict[str, str]:
    return {
        "json": msgspec.json.encode(message).decode(),
        "sealed_base64": base64.b64encode(sealed).decode(),
    }


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def test_what_is_computed_is_what_the_page_shows(kept: dict[str, Any]) -> None:
    assert vectors(kept["ask"]["sealed_base64"]) == kept


def test_what_the_page_shows_is_read(kept: dict[str, Any]) -> None:
    found = card.read(json.dumps(kept["card"]["signed"]).encode(), kept["card"]["read_at"])
    assert (found.id, found.name, found.says.experts) == (ANSWERER.id, "sage", 3)
    assert found.vectors(4)[0].tolist() == pytest.approx([2**-0.5, 0.0, -(2**-0.5), 0.0])
    gone = card.read(json.dumps(kept["withdrawal"]["signed"]).encode(), kept["withdrawal"]["read_at"])
    assert gone.says.withdrawal == Withdrawal(1_800_000_060_000, True, ("owner",))
    assert (gone.id, gone.says.experts) == (ANSWERER.id, 0)
    sealed = base64.b64decode(kept["ask"]["sealed_base64"])
    heard = open_ask(ANSWERER, sealed, Once(), kept["ask"]["heard_at"])
    assert msgspec.json.encode(heard.ask).decode() == kept["ask"]["json"]
    assert heard.asker == ASKER.id
    signed = msgspec.json.encode(kept["receipt"]["countersigned"])
    assert receipt.read(signed)[0] == the_receipt()


def test_terms_are_read_as_the_page_shows_them(kept: dict[str, Any]) -> None:
    terms = kept["terms"]
    assert msgspec.convert(terms["card"], Terms) == TERMS
    assert msgspec.json.decode(terms["ask"], type=Ask) == the_ask_on_terms()
    assert receipt.read(msgspec.json.encode(terms["signed"]))[0] == the_receipt_on_terms()


def test_frames_are_opened_as_the_page_seals_them(kept: dict[str, Any]) -> None:
    asker, answerer = (
        Sealer(bytes.fromhex(kept["frames"]["reply_key_hex"]), answers=at) for at in (False, True)
    )
    for one in kept["frames"]["answer"]:
        frame = asker.open_frame(base64.b64decode(one["sealed_base64"]))
        assert msgspec.json.encode(frame).decode() == one["json"]
    for one in kept["frames"]["told"]:
        told = answerer.open_told(base64.b64decode(one["sealed_base64"])[22:])
        assert msgspec.json.encode(told).decode() == one["json"]


if __name__ == "__main__":
    sealed = base64.b64encode(seal_ask(ASKER, the_ask(), ANSWERER.exchange)).decode()
    FILE.write_text(json.dumps(vectors(sealed), indent=1) + "\n")
