"""Networks in which some answer from documents: cited, declined, in conflict, and with models beside them."""

from contextlib import aclosing
from typing import Any

import pytest

from manyminds.cache import Cache
from manyminds.errors import AllExpertsFailedError, NoExpertError
from manyminds.experts.scripted import Script, Scripted
from manyminds.gateway import Gateway
from manyminds.types import Chunk, Citation, Conflict, Grounds, Limits, Query, Report, Terms
from manyminds.wire import parse_request
from tests.changed import replace
from tests.clock import run
from tests.network import Records, network, scripted, words
from tests.test_gateway import CHOICE, answer, ask

FEE = "What does the membership cost?"
SAYS = "It costs 1,538 dollars."
NOTHING = "My documents do not say."
FOUND = Citation("clinic", "clinic-docs", "fees.md", "Fees > Members", 3, "Members pay 1,538 dollars.")


def documents(
    name: str = "clinic-docs",
    text: str = SAYS,
    support: float = 0.9,
    *,
    source: str = "clinic",
    declined: bool = False,
    cited: Citation = FOUND,
    **more: Any,
) -> Scripted:
    fields: dict[str, Any] = {"paragraphs": 20, "accuracy": 0.0, "price_out_usd_per_m": 0.0}
    fields |= {"offers": frozenset({"citations"})} | more
    said = Script(NOTHING, grounds=Grounds(support, declined=True))
    if not declined:
        said = Script(text, grounds=Grounds(support, (cited,)))
    return scripted(name, said, source=source, **fields)


def model(name: str, text: str, **more: Any) -> Scripted:
    return scripted(name, Script(text), **more)


def grounded(text: str = FEE, **more: Any) -> Query:
    limits = Limits(grounded=True, **more)
    return ask(text, model="auto", limits=limits, demands=frozenset({"citations"}))


def entry(report: Report, expert: str) -> Any:
    return next(line for line in report.panel if line.expert == expert)


def test_an_answer_comes_with_what_it_cites() -> None:
    text, report = run(answer(network(documents(), model("m", "It costs 1538 dollars.")), ask(FEE)))
    assert text == SAYS
    assert (report.citations, report.declined) == ((FOUND,), False)
    assert not report.conflicts
    assert (entry(report, "clinic-docs").support, entry(report, "m").support) == (0.9, None)


def test_one_that_is_asked_by_name_says_how_likely_its_documents_make_it() -> None:
    net = network(documents())
    text, report = run(answer(net, ask(FEE, model="clinic-docs")))
    assert (text, report.citations) == (SAYS, (FOUND,))
    assert report.probability == pytest.approx(0.9)
    text, report = run(answer(network(documents(declined=True)), ask(FEE, model="clinic-docs")))
    assert (text, report.declined, report.citations) == (NOTHING, True, ())
    assert (report.probability, report.attribution) == (None, ())


def test_without_documents_nothing_is_said_of_them() -> None:
    _, report = run(answer(network(model("m", "43"), model("n", "43")), ask("What is 17 + 26?")))
    assert not report.citations
    assert not report.declined
    assert not report.conflicts


@pytest.mark.parametrize("policy", ["auto", "max", "cheap", "fast"])
def test_where_all_documents_decline_a_model_is_asked(policy: str) -> None:
    experts = [documents(f"d{i}", declined=True, source=f"s{i}", ttft_s=0.1) for i in range(12)]
    net = network(*experts, model("m", "Some fee.", accuracy=0.06, ttft_s=9.0, price_out_usd_per_m=90.0))
    text, report = run(answer(net, ask(FEE, model=policy)))
    assert text == "Some fee."
    assert (report.citations, report.declined) == ((), False)
    assert {line.expert for line in report.panel if line.declined} <= {f"d{i}" for i in range(12)}
    assert [owed.source for owed in report.attribution if owed.share] == ["m"]


@pytest.mark.parametrize("policy", ["auto", "max", "cheap", "fast"])
def test_where_everybody_declines_one_of_them_is_heard(policy: str) -> None:
    records = Records()
    experts = [documents(f"d{i}", declined=True, source=f"s{i}") for i in range(3)]
    text, report = run(answer(network(*experts, records=records), ask(FEE, model=policy)))
    assert (text, report.declined, report.attribution) == (NOTHING, True, ())
    assert records.rows[0][2] == "ok"


def test_a_vote_takes_no_notice_of_who_declines() -> None:
    net = network(documents(declined=True), model("a", "B) Canberra"), model("b", "A) Sydney", accuracy=0.6))
    text, report = run(answer(net, ask(CHOICE)))
    assert text == "B) Canberra"
    line = entry(report, "clinic-docs")
    assert (line.declined, line.status, line.correct_probability) == (True, "ok", None)
    assert report.agreement == pytest.approx(0.5)


def test_a_race_is_not_won_by_declining() -> None:
    slow = scripted("slow", Script("Some fee.", first_token_s=5.0), ttft_s=0.2, tokens_per_s=1000.0)
    net = network(documents(declined=True, ttft_s=0.1), slow)
    text, report = run(answer(net, ask(FEE, model="fast")))
    assert (text, report.strategy, report.declined) == ("Some fee.", "race", False)


# --- answers that need grounds ---------------------------------------------------------------------


def test_a_grounded_answer_is_asked_of_documents_alone() -> None:
    net = network(documents(), model("m", "Some fee.", accuracy=0.95))
    for policy in ("auto", "max", "cheap", "fast", "clinic-docs"):
        text, report = run(answer(net, replace(grounded(), model=policy)))
        assert (text, report.citations) == (SAYS, (FOUND,))
        assert [line.expert for line in report.panel] == ["clinic-docs"]


def test_a_grounded_request_is_declined_where_no_documents_hold_an_answer() -> None:
    net = network(documents(declined=True), model("m", "Some fee.", accuracy=0.95))
    for policy in ("auto", "max", "cheap", "fast", "clinic-docs"):
        text, report = run(answer(net, replace(grounded(), model=policy)))
        assert (text, report.declined, report.citations) == (NOTHING, True, ())


def test_where_nobody_has_documents_the_error_says_what_to_do() -> None:
    for name in ("auto", "m"):
        with pytest.raises(NoExpertError, match=r"m does not offer citations.*an expert that does") as caught:
            run(answer(network(model("m", "Some fee.")), replace(grounded(), model=name)))
        assert caught.value.param == "manyminds.grounded"


@pytest.mark.parametrize("policy", ["auto", "max", "cheap", "fast", "liar"])
def test_who_offers_citations_and_has_none_has_no_say(policy: str) -> None:
    liar = model("liar", "Trust me.", offers=frozenset({"citations"}), ttft_s=0.001, accuracy=0.98)
    query = replace(grounded(), model=policy)
    with pytest.raises(AllExpertsFailedError):
        run(answer(network(liar), query))
    if policy != "liar":
        text, _ = run(answer(network(liar, documents()), query))
        assert text == SAYS
        text, report = run(answer(network(liar, documents(declined=True)), query))
        assert (text, report.declined) == (NOTHING, True)


def test_the_field_demands_documents() -> None:
    raw = b'{"model":"auto","messages":[{"role":"user","content":"?"}],"manyminds":{"grounded":true}}'
    query = parse_request(raw)
    assert query.limits.grounded
    assert query.demands == {"citations"}


# --- who says otherwise ----------------------------------------------------------------------------


OTHER = Citation("union", "union-docs", "old.md", quote="Members paid 1,200 dollars.")


def test_documents_that_differ_are_a_conflict() -> None:
    other = documents("union-docs", "It costs 1,200 dollars.", 0.6, source="union", cited=OTHER)
    same = documents("copy-docs", "It costs $1538.", 0.5, source="copy")
    text, report = run(answer(network(documents(), other, same), ask(FEE)))
    assert text == SAYS
    assert report.conflicts
    (conflict,) = report.conflicts
    assert (conflict.answer, conflict.citations) == ("It costs 1,200 dollars.", (OTHER,))
    assert 0.0 < conflict.probability < (report.probability or 0.0)


def test_documents_of_one_source_are_no_conflict() -> None:
    other = documents("old-docs", "It costs 1,200 dollars.", 0.6, cited=OTHER)
    _, report = run(answer(network(documents(), other), ask(FEE)))
    assert not report.conflicts


def test_a_vote_lists_conflicts_with_their_probability() -> None:
    net = network(
        documents("x", "B) Canberra", 0.9, source="x"),
        documents("y", "A) Sydney", 0.7, source="y", cited=OTHER),
    )
    text, report = run(answer(net, ask(CHOICE)))
    assert text == "B) Canberra"
    assert report.conflicts == (Conflict("A) Sydney", entry(report, "y").correct_probability, (OTHER,)),)


def test_models_that_a_passage_contradicts_lose() -> None:
    net = network(documents(text="B) Canberra"), *(model(name, "A) Sydney", accuracy=0.64) for name in "abc"))
    text, report = run(answer(net, ask(CHOICE, model="max")))
    assert text == "B) Canberra"
    assert report.citations == (FOUND,)


def test_what_a_fused_answer_cites_is_what_its_drafts_do() -> None:
    def written(query: Query) -> str:
        return (
            "It costs 1,538 dollars, as written." if "<<<DRAFT" in query.question else "It is 1,538 dollars."
        )

    writer = scripted("writer", Script(replies=written), accuracy=0.9)
    net = network(writer, documents(), documents("none", declined=True, source="none"))
    text, report = run(answer(net, ask(FEE, limits=Limits(strategy="fuse"))))
    assert (text, report.strategy) == ("It costs 1,538 dollars, as written.", "fuse")
    assert (report.citations, report.declined) == ((FOUND,), False)
    assert "none" not in {owed.source for owed in report.attribution if owed.share}


def test_without_a_writer_nothing_is_fused() -> None:
    net = network(documents(), documents("d", SAYS + " So it says.", source="s"))
    text, report = run(answer(net, ask(FEE, limits=Limits(strategy="fuse"))))
    assert text in (SAYS, SAYS + " So it says.")
    assert report.strategy == "select"


# --- beside all that -------------------------------------------------------------------------------


def test_a_network_that_is_asked_as_an_expert_passes_grounds_on() -> None:
    async def last(gateway: Gateway, query: Query) -> Chunk:
        async with aclosing(gateway.stream(query)) as stream:
            return [chunk async for chunk in stream][-1]

    for name in ("auto", "clinic-docs"):
        found = run(last(network(documents()), ask(FEE, model=name)))
        assert found.grounds == Grounds(0.9, (FOUND,))
    net, fused = network(model("m", "Some fee."), documents()), ask(FEE, limits=Limits(strategy="fuse"))
    assert run(last(net, fused)).grounds == Grounds(0.9, (FOUND,))
    assert run(last(network(model("m", "Some fee.")), ask(FEE))).grounds is None


def test_a_kept_answer_has_all_that_it_had() -> None:
    async def story() -> None:
        cache = Cache(10, 1_000_000, 60.0)
        net = network(
            documents(),
            documents("union-docs", "It costs 1,200 dollars.", 0.6, source="union", cited=OTHER),
            cache=cache,
        )
        query = ask(FEE)
        text, report = await answer(net, query)
        again, kept = await answer(net, query)
        assert (again, kept.cache) == (text, "hit")
        told = ("citations", "declined", "conflicts", "probability")
        assert [getattr(kept, name) for name in told] == [getattr(report, name) for name in told]
        assert {line.support for line in kept.panel} == {0.9, 0.6}
        assert report.conflicts
        assert cache.forget("union") == 1
        assert (await answer(net, query))[1].cache == "miss"

    run(story())


def test_of_a_folder_near_the_question_the_documents_are_asked_first() -> None:
    """Three experts are: by what is near, not by what models claim."""
    near = documents(skills=("membership cost",))
    far = documents("far", "Frogs.", 0.2, source="far", skills=("zzzz qqqq",))
    models = [model(f"m{i}", "Some fee.", accuracy=0.45) for i in range(4)]
    _, report = run(answer(network(near, far, *models, embed=words), ask(FEE)))
    asked = {line.expert for line in report.panel}
    assert "clinic-docs" in asked
    assert "far" not in asked


def test_documents_move_an_answer_no_further_than_their_terms_allow() -> None:
    """What they do to others' votes is measured, too."""
    held = documents(text="B) Canberra", terms=Terms(max_share=0.2))
    net = network(held, *(model(name, "A) Sydney", accuracy=0.64) for name in "ab"))
    text, report = run(answer(net, ask(CHOICE)))
    assert text == "A) Sydney"
    assert {owed.source: owed.share for owed in report.attribution}["clinic"] <= 0.2
    text, _ = run(answer(network(documents(text="B) Canberra"), model("a", "A) Sydney")), ask(CHOICE)))
    assert text == "B) Canberra"
