"""Who was withdrawn teaches nobody: a ledger that knew it is, to whoever learns, one that never did."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.ledger import Gone, Ledger, Withdrawal
from manyminds.ledger.tables import SCHEMA
from manyminds.types import Answer, Outcome, Usage
from tests.changed import replace
from tests.ledger.samples import ANSWERS, ask, entry, grade, report
from tests.ledger.test_sources import RECEIPT_TERMS

NAMES = ("a", "b", "c", 'd"e', "a:direct")


def outcome(request_id: str, expert: str, correct: float, *voters: str) -> Outcome:
    weight = 0.1 if voters else 1.0
    return Outcome(request_id, expert, "ok", None, 0.0, 0, correct, weight=weight, voters=voters)


def answered(expert: str) -> Answer:
    return Answer(expert, f"{expert}'s", "ok", "4", ttft_s=0.1, seconds=0.3, usage=Usage(7, 2, 0.25, 0.001))


def told(ledger: Ledger, one: Outcome, calls: Any = ("b", "c")) -> None:
    """A request of these experts, whose outcome came with it."""
    answers = [answered(name) for name in calls]
    panel = tuple(entry(answer, 0.5, 0.001) for answer in answers)
    ledger.record(replace(report(one.request_id), panel=panel), ask(), answers, "4", "ok", 0.4, [one])


def learnt(ledger: Ledger, each: int = 500) -> list[Outcome]:
    """What a router learns, as a request's place in the log does not matter."""
    return [replace(found, place=0, at_utc="") for found in ledger.graded(0, each)]


def gone_of(expert: str, event: Any = "withdrawn", who: str = "owner") -> Withdrawal:
    return Withdrawal(event, expert, f"{expert}'s", (expert, f"{expert}:direct"), who)


outcomes = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from((0.0, 1.0)),
        st.lists(st.sampled_from(NAMES), unique=True, max_size=3),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(outcomes, outcomes, st.sampled_from(("a", "b", 'd"e')), st.integers(1, 4), st.booleans())
def test_what_is_learnt_is_what_would_have_been(
    before: Any, later: Any, gone: str, each: int, returns: bool
) -> None:
    """Before, nothing that touches it counts; after its return it counts as new."""
    names = {gone, f"{gone}:direct"}

    def touches(of: Any) -> bool:
        return of[0] in names or bool(names & set(of[2]))

    with TemporaryDirectory() as folder:
        urls = [f"sqlite:///{folder}/{name}.db" for name in ("had", "never")]
        with closing(Ledger(urls[0])) as had, closing(Ledger(urls[1])) as never:
            for i, of in enumerate(before):
                one = outcome(f"r{i}", of[0], of[1], *sorted(of[2]))
                told(had, one)
                if not touches(of):
                    told(never, one)
            had.withdraw(gone_of(gone))
            if returns:
                had.withdraw(gone_of(gone, "returned"))
            for i, of in enumerate(later):
                one = outcome(f"s{i}", of[0], of[1], *sorted(of[2]))
                told(had, one)
                if returns or not touches(of):
                    told(never, one)
            had.flush()
            never.flush()
            assert learnt(had, each) == learnt(never, each)


def test_who_is_gone_and_who_is_back(ledger: Ledger) -> None:
    assert ledger.gone() == Gone()
    first = ledger.withdraw(gone_of("a"))
    now = ledger.gone()
    assert (now.last, set(now.experts)) == (first, {"a", "a:direct"})
    assert now.has("a")
    assert not now.has("b", "a's")
    ledger.withdraw(Withdrawal("withdrawn", "", "b's"))
    assert ledger.gone().has("b", "b's")
    ledger.withdraw(Withdrawal("dropped", "a", "a's", answers=3))
    ledger.withdraw(Withdrawal("returned", "", "b's"))
    ledger.withdraw(gone_of("a", "returned"))
    back = ledger.gone()
    assert not back.experts | back.sources
    assert back.returned.keys() == {"a", "a:direct"}
    rows = ledger.withdrawals()
    assert [row["event"] for row in rows] == ["withdrawn", "withdrawn", "dropped", "returned", "returned"]
    assert rows[2]["answers"] == 3


def test_only_who_withdrew_it_has_it_back(ledger: Ledger) -> None:
    """An owner's word is not undone by the node's own, nor the other way round."""
    told(ledger, outcome("r", "n", 1.0), ["n"])
    for who in ("owner", "node"):
        ledger.withdraw(replace(gone_of("n", who=who), document="" if who == "owner" else "signed"))
    ledger.withdraw(replace(gone_of("n", "returned", who="node"), document="signed again"))
    assert ledger.gone().has("n")
    assert ledger.gone().documents == {"node": "signed again"}
    assert learnt(ledger) == []
    ledger.withdraw(gone_of("n", "returned"))
    assert not ledger.gone().has("n")
    assert learnt(ledger) == []
    told(ledger, outcome("s", "n", 1.0), ["n"])
    ledger.flush()
    assert [one.request_id for one in learnt(ledger)] == ["s"]


def test_a_grade_of_an_old_request_teaches_nothing_of_who_came_back(ledger: Ledger) -> None:
    ledger.record(report("old"), ask(key="k"), ANSWERS, "4", "ok", 0.4)
    for event in ("withdrawn", "returned"):
        ledger.withdraw(gone_of("a", event))
    ledger.record(report("new"), ask(key="k"), ANSWERS, "4", "ok", 0.4)
    for name in ("old", "new"):
        assert grade(ledger, name, "k", 1.0) == "learnt"
    assert [(one.request_id, one.expert) for one in learnt(ledger)] == [("new", "a")]


def test_who_was_wrong_by_its_answer_alone_is_not_judged(ledger: Ledger) -> None:
    """A caller said that what only "a" had said was right: so "b" was wrong. Without "a" nobody had asked."""
    for name, said in (("apart", (0.9, 0.2)), ("together", (0.7, 0.7))):
        answers = [answered("a"), answered("b")]
        panel = tuple(
            replace(entry(one, 0.5, 0.001), correct_probability=p)
            for one, p in zip(answers, said, strict=True)
        )
        asked = replace(report(name), panel=panel)
        ledger.record(asked, ask(key="k"), answers, "4", "ok", 0.4)
        assert grade(ledger, name, "k", 1.0) == "learnt"
    both = [("apart", "a", 1.0), ("apart", "b", 0.0), ("together", "a", 1.0), ("together", "b", 1.0)]
    assert [(one.request_id, one.expert, one.correct) for one in learnt(ledger)] == both
    ledger.withdraw(gone_of("a"))
    assert [(one.request_id, one.expert, one.correct) for one in learnt(ledger)] == both[3:]


def test_what_was_measured_of_it_is_not_rated(ledger: Ledger) -> None:
    told(ledger, outcome("r", "b", 1.0))
    ledger.flush()
    week = [timedelta(days=7)]
    assert [row[1] for row in ledger.calls(week, 9)] == ["b", "c"]
    assert [row[1] for row in ledger.grades(week, 9)] == ["b"]
    ledger.withdraw(gone_of("b"))
    assert [row[1] for row in ledger.calls(week, 9)] == ["c"]
    assert ledger.grades(week, 9) == []


def test_other_gateways_hear_nothing_of_its_calls(url: str) -> None:
    with closing(Ledger(url)) as ledger, closing(Ledger(url)) as other:
        told(ledger, outcome("r", "b", 1.0))
        ledger.flush()
        assert {one.expert for one in other.heard(0, 99)[1]} == {"b", "c"}
        row = ledger.withdraw(gone_of("b"))
        assert {one.expert for one in other.heard(0, 99)[1]} == {"c"}
        (written,) = ledger.withdrawals()
        assert (written["id"], written["requests"], written["outcomes"]) == (row, 1, 1)
        assert len(ledger.requests()) == 1  # what was recorded stays


def test_schema_4_knew_nobody(tmp_path: Path) -> None:
    import sqlite3

    file = tmp_path / "ledger.db"
    with closing(Ledger(f"sqlite:///{file}")):
        pass
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("DROP TABLE withdrawals")
        raw.execute("DROP TABLE attributions")
        raw.execute("ALTER TABLE requests DROP COLUMN purpose")
        for name in RECEIPT_TERMS:
            raw.execute(f"ALTER TABLE receipts DROP COLUMN {name}")
        raw.execute("UPDATE schema SET version = 4")
        raw.commit()
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        assert ledger.gone() == Gone()
        ledger.withdraw(gone_of("a"))
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute("SELECT version FROM schema").fetchone() == (SCHEMA,)
