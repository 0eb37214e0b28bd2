"""What documents say, from node to node: citations, declines, and what a peer may not make of them."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from manyminds.errors import GarbageError, RefusedError
from manyminds.experts.scripted import Script, Scripted
from manyminds.network.ask import Heard
from manyminds.network.frames import MOST_CITED, Frame, Sealer
from manyminds.types import Card, Citation, Expert, Grounds, Limits, Query
from tests.changed import replace
from tests.experts.test_peer import joined, played, telling
from tests.network import network, scripted
from tests.network.sides import Asker, Memory, Side, query, speaks
from tests.test_gateway import answer, ask
from tests.test_gateway_documents import FEE, FOUND, NOTHING, SAYS, documents, entry, grounded

HERE = replace(FOUND, source="bob", expert="clinic/clinic-docs")
CITES: dict[str, Any] = {"paragraphs": 20, "accuracy": 0.0, "offers": frozenset({"citations"})}


def model(name: str, text: str, **more: Any) -> Scripted:
    return scripted(name, Script(text), price_out_usd_per_m=0.0, **more)


def asking(*experts: Expert, **card: Any) -> tuple[Side, Asker]:
    """Ann, for whom Bob's network answers."""
    return joined(Side(expert=network(*experts)), **(CITES | card))


def test_a_citation_arrives_with_who_found_it_there() -> None:
    async def story() -> None:
        side, bob = asking(documents(), model("m", "It costs 1538 dollars."))
        text, report = await answer(network(bob.peer, model("own", "Some fee.", accuracy=0.3)), ask(FEE))
        assert (text, report.citations, report.declined) == (SAYS, (HERE,), False)
        assert entry(report, "bob").support == pytest.approx(0.9)
        assert {owed.source for owed in report.attribution} == {"bob", "own"}
        assert side.admitted

    played(story)


def test_who_is_its_own_source_is_named_once() -> None:
    async def story() -> None:
        _, bob = asking(documents(cited=replace(FOUND, source="clinic-docs")))
        (*_, last) = await bob.chunks(query(FEE))
        assert last.grounds is not None
        assert [one.expert for one in last.grounds.citations] == ["clinic-docs"]

    played(story)


@pytest.mark.parametrize("policy", ["auto", "fast"])
def test_a_decline_arrives_as_one_and_somebody_else_is_asked(policy: str) -> None:
    async def story() -> None:
        _, bob = asking(documents(declined=True), ttft_s=0.001)
        slow = scripted("own", Script("Some fee.", first_token_s=2.0), ttft_s=0.1, tokens_per_s=9999.0)
        text, report = await answer(network(bob.peer, slow), ask(FEE, model=policy))
        assert (text, report.declined) == ("Some fee.", False)
        assert entry(report, "bob").declined
        text, report = await answer(network(bob.peer), ask(FEE, model=policy))
        assert (text, report.declined) == (NOTHING, True)

    played(story)


def test_a_decline_comes_in_one_piece() -> None:
    async def story() -> None:
        _, bob = asking(documents(declined=True))
        (only,) = await bob.chunks(query(FEE))
        assert (only.text, only.finish_reason, only.declines) == (NOTHING, "stop", True)

    played(story)


def test_that_grounds_are_wanted_is_passed_on() -> None:
    async def story() -> None:
        side, bob = asking(documents(declined=True), model("m", "Some fee.", accuracy=0.95))
        text, report = await answer(network(bob.peer, model("own", "Some fee.")), grounded(purpose="x"))
        assert (text, report.declined) == (NOTHING, True)
        ((heard, there, _),) = side.admitted
        assert json.loads(bytes(heard.ask.request))["manyminds"] == {"grounded": True}
        assert there.limits.grounded
        assert "citations" in there.demands

    played(story)


def test_who_has_no_documents_after_all_refuses() -> None:
    async def story() -> None:
        _, bob = asking(model("m", "Some fee."))
        with pytest.raises(RefusedError, match="does not offer citations"):
            await bob.chunks(replace(grounded(), model="bob"))

    played(story)


def test_what_was_fused_cites_what_its_drafts_do() -> None:
    class Fusing(Scripted):
        """A network that was asked to fuse: what a peer may not ask for."""

        def stream(self, query: Query) -> Any:
            limits = Limits(strategy="fuse")
            return there.stream(replace(query, limits=limits, model="auto"))

    def written(asked: Query) -> str:
        return "1,538, as written." if "<<<DRAFT" in asked.question else "It is 1,538."

    there = network(
        scripted("writer", Script(replies=written), accuracy=0.9, price_out_usd_per_m=0.0),
        documents(support=0.8),
    )

    async def story() -> None:
        _, bob = joined(Side(expert=Fusing(Card("f", "scripted"), Script())), **CITES)
        chunks = await bob.chunks(query(FEE))
        assert "".join(chunk.text for chunk in chunks) == "1,538, as written."
        assert chunks[-1].grounds == Grounds(0.8, (HERE,))

    played(story)


def test_too_much_is_cut_by_who_sends_it() -> None:
    many = tuple(
        Citation("s" * 999, "e" * 999, "d" * 999, "h" * 999, i, "q" * 9999, share=float("nan"))
        for i in range(99)
    )
    told = Grounds(float("inf"), many)

    async def story() -> None:
        _, bob = joined(Side(expert=Scripted(Card("b", "scripted"), Script("x", grounds=told))))
        found = (await bob.chunks())[-1].grounds
        assert found is not None
        assert (found.support, len(found.citations)) == (0.0, MOST_CITED)
        one = found.citations[0]
        sizes = (len(one.expert), len(one.document), len(one.heading), len(one.quote))
        assert (one.source, one.share, *sizes) == ("bob", 0.0, 401, 400, 400, 4000)

    played(story)


def test_absurd_grounds_are_no_answer() -> None:
    def bent(**grounds: Any) -> Memory:
        def frames(heard: Heard, sealer: Sealer) -> Sequence[bytes | Frame]:
            *before, end = telling()(heard, sealer)
            plain: Any = msgspec.to_builtins(end)
            plain["answered"]["grounds"] = {"support": 0.5} | grounds
            return [*map(sealer.seal, before), sealer.seal(plain)]

        return speaks(frames)

    async def story() -> None:
        absurd: list[dict[str, Any]] = [
            {"support": 1.5},
            {"support": -0.1},
            {"citations": [{"source": "s"}] * (MOST_CITED + 1)},
            {"citations": [{"source": "s" * 201}]},
            {"citations": [{"source": "s", "paragraph": -1}]},
            {"citations": [{}]},
        ]
        for grounds in absurd:
            asker = Asker(bent(**grounds))
            with pytest.raises(GarbageError):
                await asker.chunks()
            assert asker.deeds == {"garbled": 1}
        found = (await Asker(bent(colour="red", citations=[{"source": "s", "page": 7}])).chunks())[-1]
        assert found.grounds == Grounds(0.5, (Citation("bob", "s"),))  # what is newer is passed over

    played(story)
