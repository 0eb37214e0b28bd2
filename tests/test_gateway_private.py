"""The way of a private question: who pays, what is told, and what nobody ever hears."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from manyminds.cache import Cache
from manyminds.errors import BudgetError, InvalidRequestError, PrivacyError, UnavailableError
from manyminds.experts.scripted import Script
from manyminds.private import Account, Bank
from manyminds.types import Chunk, Journey, Key, Limits, Message, Query, Usage
from manyminds.wire import parse_request, report_object
from tests.clock import run
from tests.network import Records, network, scripted

CHOICE = "Which is the capital of Australia?\nA) Sydney\nB) Canberra"


class Books:
    """Accounts as a ledger keeps them; the sources in `spent` have not that much left."""

    def __init__(self, *spent: str) -> None:
        self.paid: defaultdict[str, float] = defaultdict(float)
        self.open = 0
        self.spent = spent

    def bank(self, seed: int = 1) -> Bank:
        return Bank(self.spend, below=Random(seed).randrange)

    async def spend(self, account: Account) -> "_Held":
        if account.source in self.spent:
            raise BudgetError("It has nothing left.")
        self.open += 1
        return _Held(self, account)


class _Held:
    def __init__(self, books: Books, account: Account) -> None:
        self.books, self.account = books, account

    def settle(self, spent: float) -> None:
        self.books.open -= 1
        self.books.paid[self.account.source] += spent


def ask(text: str = CHOICE, **limits: Any) -> Query:
    return Query((Message("user", text),), model="private", request_id="r1", limits=Limits(**limits))


async def heard(gateway: Any, query: Query) -> list[Chunk]:
    async with aclosing(gateway.stream(query)) as stream:
        return [chunk async for chunk in stream]


def voters(count: int, script: Script | None = None, **card: Any) -> list[Any]:
    return [scripted(f"e{i:02}", script or Script(text="B) Canberra"), **card) for i in range(count)]


def test_the_reply_tells_the_answer_and_what_it_may_cost_and_nothing_else() -> None:
    books, records = Books(), Records()
    net = network(*voters(40), records=records, bank=books.bank())
    chunks = run(heard(net, ask()))
    assert "".join(chunk.text for chunk in chunks) == "B) Canberra"
    report = chunks[-1].report
    assert report is not None
    told = {"epsilon": 4.0, "delta": 1e-6, "polled": 40}
    assert report_object(report) == {"request_id": "r1", "policy": "private", "privacy": told}
    assert chunks[-1].usage == Usage(ask().estimated_tokens, 3)
    ((kept, text, status),) = records.rows
    assert (kept, text, status) == (report, "B) Canberra", "ok")
    assert (kept.panel, kept.attribution, kept.cost_usd, kept.agreement) == ((), (), 0.0, None)
    assert records.answers == []
    assert books.open == 0
    assert set(books.paid) == {f"e{i:02}" for i in range(40)}


def test_nothing_is_learnt_of_it() -> None:
    """What the router knows of an expert would tell others how it answered."""
    net = network(*voters(40), bank=Books().bank())
    before = msgspec.json.encode(net._parts.router.route(ask_auto(), cards_of(net), Limits()))
    run(heard(net, ask()))
    assert msgspec.json.encode(net._parts.router.route(ask_auto(), cards_of(net), Limits())) == before


def ask_auto() -> Query:
    return Query((Message("user", CHOICE),), model="auto", request_id="r2")


def cards_of(net: Any) -> Sequence[Any]:
    return [expert.card for expert in net._parts.experts.values()]


def test_it_is_never_kept() -> None:
    """Noise is drawn anew each time, and paid for."""
    cache, books = Cache(100, 10_000_000, 1000.0), Books()
    net = network(*voters(40), bank=books.bank(), cache=cache)
    for _ in range(2):
        run(heard(net, ask()))
    assert len(cache) == 0
    assert len(set(books.paid.values())) == 1
    once = Books()
    run(heard(network(*voters(40), bank=once.bank()), ask()))
    assert books.paid["e00"] == pytest.approx(2 * once.paid["e00"])


def test_who_fails_is_told_to_nobody() -> None:
    """A source that fails, or says what cannot be read, changes no more than its own vote."""
    failing = [scripted(f"f{i}", Script(refuse=True)) for i in range(3)]
    failing += [scripted(f"g{i}", Script(text="I cannot say.")) for i in range(3)]
    books, records = Books(), Records()
    chunks = run(heard(network(*voters(40), *failing, bank=books.bank(), records=records), ask()))
    assert chunks[-1].report is not None
    assert chunks[-1].report.privacy.polled == 46  # type: ignore[union-attr]
    assert len(set(books.paid.values())) == 1
    assert records.answers == []


def test_there_is_an_answer_where_nobody_answers() -> None:
    books = Books()
    chunks = run(heard(network(*voters(40, Script(refuse=True)), bank=books.bank()), ask()))
    assert "".join(c.text for c in chunks) in ("A) Sydney", "B) Canberra")
    assert books.open == 0


def test_who_has_nothing_left_is_not_asked() -> None:
    books = Books("e00", "e01")
    net = network(*voters(40), bank=books.bank())
    chunks = run(heard(net, ask()))
    assert chunks[-1].report is not None
    assert chunks[-1].report.privacy.polled == 38  # type: ignore[union-attr]
    assert not {"e00", "e01"} & set(books.paid)
    assert books.open == 0


def test_too_few_have_anything_left() -> None:
    books, records = Books(*(f"e{i:02}" for i in range(30))), Records()
    net = network(*voters(40), bank=books.bank(), records=records)
    with pytest.raises(PrivacyError, match="30 more have not that much left"):
        run(heard(net, ask()))
    assert sum(books.paid.values()) == 0
    assert books.open == 0
    assert records.rows == []


def test_a_ledger_that_is_away_costs_nobody_anything() -> None:
    class Away(Books):
        async def spend(self, account: Account) -> _Held:
            if account.source == "e20":
                raise UnavailableError("The ledger does not answer.")
            return await super().spend(account)

    books = Away()
    with pytest.raises(UnavailableError):
        run(heard(network(*voters(40), bank=books.bank()), ask()))
    assert sum(books.paid.values()) == 0
    assert books.open == 0


def test_who_leaves_has_paid() -> None:
    """The sources may have been asked: what it might have told is spent."""
    books, records = Books(), Records()
    net = network(*voters(40, Script(text="B", stall_after=0)), bank=books.bank(), records=records)

    async def leave() -> None:
        task = asyncio.ensure_future(heard(net, ask()))
        await asyncio.sleep(1.0)  # of a virtual clock
        assert books.open == 40
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(leave())
    assert set(books.paid) == {f"e{i:02}" for i in range(40)}
    assert books.open == 0
    ((_, text, status),) = records.rows
    assert (text, status) == ("", "cancelled")


def test_the_caller_says_how_much_it_may_tell() -> None:
    books = Books()
    net = network(*voters(60), bank=books.bank())
    chunks = run(heard(net, ask(epsilon=1.0, delta=1e-5)))
    assert chunks[-1].report is not None
    assert chunks[-1].report.privacy.epsilon == 1.0  # type: ignore[union-attr]
    little = books.paid["e00"]
    run(heard(net, ask(epsilon=2.0, delta=1e-5)))
    assert books.paid["e00"] > 3 * little


def test_it_costs_what_it_may_cost_at_most() -> None:
    """What was used would tell how much was said."""
    net = network(*voters(40), bank=Books().bank())
    with pytest.raises(BudgetError, match="40 sources"):
        run(heard(net, ask(budget_usd=1e-9)))


def test_another_nodes_question_costs_no_more_than_it_brings() -> None:
    """Between nodes budgets hold, whatever comes."""
    books = Books()
    net = network(*voters(40), bank=books.bank())
    brought = replace(ask(), journey=Journey(1e9, 2, budget_usd=1e-3))
    with pytest.raises(BudgetError):
        run(heard(net, brought))
    assert sum(books.paid.values()) == 0
    free = network(*voters(40, price_out_usd_per_m=0.0), bank=books.bank())
    assert run(heard(free, brought))[-1].report is not None


def test_who_cannot_pay_costs_no_source_anything() -> None:
    """Else whoever has no money could use up what all answers may tell."""

    async def broke(key: Key, usd: float) -> Any:
        raise BudgetError("No money is left.")

    books, records = Books(), Records()
    net = network(*voters(40), bank=books.bank(), reserve=broke, records=records)
    poor = replace(ask(), key=Key("k", "ann", budget_usd=1.0))
    with pytest.raises(BudgetError, match="No money"):
        run(heard(net, poor))
    assert sum(books.paid.values()) == 0
    assert books.open == 0
    assert records.rows == []


@pytest.mark.parametrize(("model", "policy"), [("private", None), ("auto", "private")])
def test_either_way_of_asking_is_private(model: str, policy: str | None) -> None:
    limits = {"policy": policy, "candidates": ["yes", "no"]}
    body = {"model": model, "messages": [{"role": "user", "content": "Purr?"}], "manyminds": limits}
    query = parse_request(msgspec.json.encode(body), "r1")
    net = network(*voters(40, Script(text="A")), bank=Books().bank())
    chunks = run(heard(net, query))
    assert "".join(c.text for c in chunks) == "yes"
    assert chunks[-1].report is not None
    assert chunks[-1].report.policy == "private"


def test_it_stands_in_for_nobody() -> None:
    net = network(*voters(40), bank=Books().bank())
    query = parse_request(
        b'{"model":"private","models":["auto"],"messages":[{"role":"user","content":"A) x B) y"}]}', "r"
    )
    with pytest.raises(InvalidRequestError, match="polls many"):
        run(heard(net, query))


def test_no_expert_by_name_answers_what_was_to_be_private() -> None:
    """In the clear, while its caller takes it for private."""
    net = network(*voters(40), bank=Books().bank())
    query = replace(ask(), model="e00", limits=Limits(policy="private"))
    with pytest.raises(InvalidRequestError, match="name `private` as the model"):
        run(heard(net, query))
    with pytest.raises(InvalidRequestError):
        run(net.complete(query))


def test_without_accounts_there_is_no_private_answer() -> None:
    with pytest.raises(PrivacyError, match="keeps no account"):
        run(heard(network(*voters(40)), ask()))
