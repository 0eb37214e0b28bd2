"""A node that answers in good order, but for what it charges; for `manyminds bench network`.

`python -m manyminds.evals.liar KIND PORT`: how it lies, and where others join. Its price is on its card, and
whoever wants to pay it lists the node of `identity`.
"""

import asyncio
import sys
import time
from contextlib import suppress
from typing import Final

import msgspec

from manyminds.errors import ManymindsError
from manyminds.network import card as cards
from manyminds.network import jws, receipt
from manyminds.network.answering import Price
from manyminds.network.ask import Heard, Once, open_ask
from manyminds.network.card import PROTOCOL, Claim, Claims
from manyminds.network.frames import Answered, AnswerHash, Frame, Sealer, request_hash
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt
from manyminds.network.transport import Send
from manyminds.network.zenoh import Zenoh, settings
from manyminds.types import Usage

__all__ = ["KINDS", "PRICE", "answer", "identity", "main"]

KINDS: Final = ("dear", "greedy", "padded")
"""Charges ten times what its card says; more than the ask's budget; for tokens that nobody got."""

PRICE: Final = Price(1.0, 2.0)

_USED: Final = Usage(20, 2)
_PADDED_TOKENS: Final = 900


def identity() -> Identity:
    """Its keys, always the same: they guard nothing."""
    return Identity.of_seed(b"manyminds bench network: a liar.")


async def main(kind: str, port: int) -> None:
    """Answers until it is ended."""
    own, heard_before = identity(), Once()

    async def heard(sealed: bytes, send: Send) -> None:
        with suppress(ManymindsError):
            answer(own, open_ask(own, sealed, heard_before), kind, send)

    async with Zenoh(
        own.id, settings([f"tcp/127.0.0.1:{port}"], ""), heard, lambda ask_id, told: None
    ) as way:
        now = time.time()
        says = Claims(
            *("", "", int(now * 1000), int(now) + 900, (PROTOCOL,)),
            claims=(Claim(0.9),),
            price_in_usd_per_m=PRICE.in_usd_per_m,
            price_out_usd_per_m=PRICE.out_usd_per_m,
        )
        way.announce(cards.made(own, says, name="liar"))
        print("ready", flush=True)
        await asyncio.Event().wait()


def answer(own: Identity, heard: Heard, kind: str, send: Send) -> None:
    """Two words, and a receipt that lies."""
    ask, sealer, said = heard.ask, Sealer(heard.reply_key, answers=True), AnswerHash(heard.ask.nonce)
    text = Frame(text="B) so")
    said.take(text)
    send(sealer.seal(text), False)
    honest_usd = PRICE.of(_USED)
    tokens, price_usd = {
        "dear": (_USED.completion_tokens, 10 * honest_usd),
        "greedy": (_USED.completion_tokens, 2 * ask.budget_usd),
        "padded": (_PADDED_TOKENS, PRICE.of(Usage(_USED.prompt_tokens, _PADDED_TOKENS))),
    }[kind]
    made = Receipt(
        v=PROTOCOL,
        ask=ask.id,
        asker=ask.key,
        answerer=jws.base64url(own.public),
        nonce=ask.nonce,
        request_sha256=request_hash(bytes(ask.request), ask.nonce),
        answer_sha256=said.hex,
        prompt_tokens=_USED.prompt_tokens,
        completion_tokens=tokens,
        price_usd=price_usd,
        experts=("liar",),
        sources=("liar",),
        at=round(time.time(), 3),
    )
    signed = msgspec.json.encode(receipt.issue(own, made)).decode()
    send(sealer.seal(Frame(answered=Answered("stop", signed))), True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
