"""Small networks of scripted experts, for tests of the gateway and the edge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from manyminds.admission import Sources
from manyminds.cache import Cache
from manyminds.combine.bounded import Bounded
from manyminds.combine.fuse import Fuse
from manyminds.combine.grounded import Grounded
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts, Reserve
from manyminds.index import Index
from manyminds.ledger import Ledger
from manyminds.private import Bank
from manyminds.router import SkillRouter
from manyminds.router.explorer import Explorer
from manyminds.types import Answer, Card, Embed, Expert, Limits, Query, Report


@dataclass
class Records:
    """Stands where the ledger would."""

    rows: list[tuple[Report, str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)

    def record(
        self,
        report: Report,
        query: Query,
        answers: Sequence[Answer],
        text: str,
        status: str,
        seconds: float,
    ) -> None:
        self.rows.append((report, text, status))
        self.queries.append(query)
        self.answers.extend(answers)


def scripted(name: str, script: Script, **card: Any) -> Scripted:
    fields: dict[str, Any] = {"source": name, "accuracy": 0.7, "price_out_usd_per_m": 1.0} | card
    return Scripted(Card(name, "scripted", **fields), script)


def words(texts: Sequence[str]) -> Any:
    """Texts as counts of letters: enough for equal texts to be near and different ones apart."""
    import numpy as np

    rows = np.zeros((len(texts), 27), dtype=np.float32)
    for i, text in enumerate(texts):
        for letter in text.lower():
            rows[i, ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1.0
        rows[i, 0] += 0.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def network(
    *experts: Expert,
    records: Records | Ledger | None = None,
    patience: Patience | None = None,
    embed: Embed | None = None,
    reserve: Reserve | None = None,
    cache: Cache | None = None,
    explore: Random | None = None,
    sources: Sources | None = None,
    bank: Bank | None = None,
) -> Gateway:
    """A gateway over these experts; it explores in every request where it has a source of chance."""
    by_name: Mapping[str, Expert] = {expert.card.name: expert for expert in experts}
    index = Index(27)
    router = SkillRouter(index, embed)
    for expert in experts:
        router.admit(expert.card)
    vote, race, select = Bounded(Grounded(Vote())), Race(), Bounded(Grounded(Select(embed or words)))
    parts = Parts(
        experts=by_name,
        index=index,
        router=router,
        combiners={"vote": vote, "select": select, "fuse": Fuse(select, vote), "race": race, "pass": race},
        record=(records or Records()).record,
        embed=embed,
        reserve=reserve,
        cache=cache,
        explore=Explorer(router, 1.0, explore).explored if explore else None,
        sources=sources,
        bank=bank,
    )
    defaults = Limits(policy="auto", deadline_s=60.0)
    return Gateway(Card("net", "gateway", source="net"), parts, patience or Patience(), defaults)
