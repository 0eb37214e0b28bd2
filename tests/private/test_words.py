"""Private answers in words: who pays, who writes, and what is told."""

from collections.abc import AsyncGenerator, Sequence
from random import Random
from typing import Any

import pytest

from manyminds.errors import PrivacyError, UnavailableError
from manyminds.privacy.accounting import epsilon_of
from manyminds.private import Bank
from manyminds.types import Card, Chunk, Following, Query, Usage
from tests.clock import run
from tests.network import Records, network
from tests.test_gateway_private import Books, ask, heard

pytest.importorskip("dp_accounting")

WORDS = "How do you do?"


class Writer:
    """Says one of two letters again and again, or fails."""

    def __init__(self, name: str, letter: int, *, words: str = "v", fails: bool = False, **card: Any) -> None:
        self.card = Card(name, "local", source=name, **card)
        self.letter, self.words, self.fails = letter, words, fails
        self.asked = 0

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        yield Chunk("no", "stop", Usage())

    async def vocabulary(self) -> str:
        return self.words

    async def prompt_tokens(self, query: Query) -> tuple[int, ...]:
        return (1,)

    async def next_tokens(self, tokens: Sequence[int], count: int) -> Following:
        self.asked += 1
        if self.fails:
            raise UnavailableError("It fell over, which is a secret.")
        order = (self.letter, 1 - self.letter)
        return Following(order, (-0.05, -3.0), tuple((b"x", b"y")[i] for i in order), Usage(1, 1, 0.0, 9.0))


def bank(books: Books, public: str = "public") -> Bank:
    return Bank(books.spend, epsilon=8.0, delta=1e-5, below=Random(3).randrange, public=public)


def question(tokens: int = 20, **limits: Any) -> Query:
    import msgspec.structs as structs

    from manyminds.types import Sampling

    return structs.replace(ask(WORDS, **limits), sampling=Sampling(max_tokens=tokens))


def test_sources_that_pay_turn_the_answer() -> None:
    books, records = Books(), Records()
    sources = [Writer(f"s{i:02}", 1) for i in range(20)]
    net = network(Writer("public", 0), *sources, records=records, bank=bank(books))
    chunks = run(heard(net, question()))
    text = "".join(chunk.text for chunk in chunks)
    assert len(text) == 20
    assert text.count("y") > 10
    report = chunks[-1].report
    assert report is not None
    assert report.privacy
    assert report.privacy.polled == 20
    assert report.privacy.epsilon <= 8.0
    assert set(books.paid) == {f"s{i:02}" for i in range(20)}
    assert epsilon_of(books.paid["s00"], 1e-5) == pytest.approx(report.privacy.epsilon)
    assert books.open == 0
    assert chunks[-1].usage == Usage(question().estimated_tokens, 5)
    assert (report.cost_usd, report.panel, records.answers) == (0.0, (), [])


def test_who_fails_is_polled_all_the_same_and_nobody_hears_of_it() -> None:
    told = []
    for fails in (False, True):
        books = Books()
        sources = [Writer(f"s{i:02}", 0, fails=fails and i < 5) for i in range(20)]
        chunks = run(heard(network(Writer("public", 0), *sources, bank=bank(books)), question()))
        told.append((chunks[-1].report, dict(books.paid)))
    assert told[0] == told[1]


def test_other_vocabularies_and_the_public_models_own_source_are_not_polled() -> None:
    books = Books()
    others = [Writer(f"o{i}", 1, words="other") for i in range(9)]
    sources = [Writer(f"s{i:02}", 1) for i in range(20)]
    run(heard(network(Writer("public", 0), *sources, *others, bank=bank(books)), question()))
    assert not any(other.asked for other in others)
    assert set(books.paid) == {f"s{i:02}" for i in range(20)}


@pytest.mark.parametrize(("count", "tokens", "says"), [(3, 200, "and there are 3"), (0, 5, "there are 0")])
def test_too_few_sources_are_refused_with_the_numbers(count: int, tokens: int, says: str) -> None:
    books = Books()
    net = network(Writer("public", 0), *[Writer(f"s{i}", 1) for i in range(count)], bank=bank(books))
    with pytest.raises(PrivacyError, match=says):
        run(heard(net, question(tokens)))
    assert not books.paid


def test_who_has_nothing_left_is_left_out() -> None:
    books = Books("s00", "s01")
    net = network(Writer("public", 0), *[Writer(f"s{i:02}", 1) for i in range(20)], bank=bank(books))
    chunks = run(heard(net, question()))
    assert chunks[-1].report is not None
    assert chunks[-1].report.privacy
    assert chunks[-1].report.privacy.polled == 18


def test_without_a_public_model_it_is_refused_as_ever() -> None:
    sources = [Writer(f"s{i:02}", 1) for i in range(20)]
    with pytest.raises(PrivacyError, match="candidates"):
        run(heard(network(*sources, bank=bank(Books(), "")), question()))
    with pytest.raises(PrivacyError, match=r"private\.public"):
        run(heard(network(*sources, bank=bank(Books(), "gone")), question()))


def test_where_the_public_model_fails_the_answer_does_and_is_paid_for() -> None:
    books = Books()
    sources = [Writer(f"s{i:02}", 1) for i in range(20)]
    with pytest.raises(UnavailableError):
        run(heard(network(Writer("public", 0, fails=True), *sources, bank=bank(books)), question()))
    assert books.paid["s00"] > 0
    assert books.open == 0


def test_candidates_are_voted_on_as_ever() -> None:
    books = Books()
    sources = [Writer(f"s{i:02}", 1) for i in range(40)]
    query = ask(WORDS, candidates=("yes", "no"))
    chunks = run(heard(network(Writer("public", 0), *sources, bank=bank(books)), query))
    assert "".join(chunk.text for chunk in chunks) in ("yes", "no")
    assert not any(source.asked for source in sources)
