"""`manyminds bench documents`: what owners who keep their documents know together.

Disjoint corpora (see `knowledge`), an owner each; every owner alone, everything pooled in one index, and the
network of owners, alone and among many others who know something else. All are asked the same questions, in
the same words, of entities that nothing was fitted to.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from manyminds.combine.bounded import Bounded
from manyminds.combine.grounded import Grounded
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.documents import Found, Library
from manyminds.encoder import Encoder
from manyminds.evals.knowledge import Built
from manyminds.evals.knowledge.fitting import POOLED, Seen, dimensions, fit, look, nearness
from manyminds.evals.knowledge.grading import cited, correct
from manyminds.evals.knowledge.neighbours import Neighbour, neighbours
from manyminds.evals.knowledge.questions import Question
from manyminds.evals.metrics import calibration_error, mean_interval
from manyminds.evals.mixing import Panel, mixed
from manyminds.experts.documents import Documents
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Card, Citation, Expert, Limits, Message, Query, Report, Strategy

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Progress", "World", "fitted", "laid", "measure"]

_OPEN: Final = 64  # libraries at a time: each has files open
_AT_ONCE: Final = 2
_FIRST: Final = 3

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""


class World(NamedTuple):
    """Owners' libraries, with everything pooled as `POOLED`, and their questions."""

    built: Built
    folder: Path
    encoder: Encoder
    libraries: Mapping[str, Library]


class _Asked(NamedTuple):
    """One question in one wording."""

    question: Question
    text: str


class _Result(NamedTuple):
    """What came of it.

    Attributes:
        cited, cited_first: whether one of its citations, or the first, tells the fact.
        place: of the owner who knows among those asked, from 0; -1 where not asked.
        probability: that the answer is right, as it says.
    """

    right: bool
    declined: bool
    cited: bool
    cited_first: bool
    place: int
    calls: int
    probability: float
    seconds: float
    cpu_s: float
    cost_usd: float


def laid(built: Built, folder: Path, encoder: Encoder, progress: Progress) -> World:
    """Indexes in `folder` what has changed of these corpora. Raises: DocumentsError, OSError."""
    libraries = {}
    names = (*built.owners, POOLED)
    for n, name in enumerate(names):
        progress("index", n / len(names))
        library = Library(folder / "libraries" / name, encoder.encode)
        library.sync(built.folder if name == POOLED else built.folder / name)
        libraries[name] = library
    return World(built, folder, encoder, libraries)


def fitted(world: World, progress: Progress, seed: int = 0) -> dict[str, Any]:
    """Coefficients fitted to the splits calibration and validation; and, of each corpus, how they serve
    where they were fitted without it.
    """
    learnt = [q for q in world.built.questions if q.split != "test"]
    seen = look(
        learnt,
        world.libraries,
        world.encoder.encode,
        seed,
        lambda n, of: progress("look", n / of),
    )
    progress("fit", 0.0)
    without = {owner: _held_out(seen, owner) for owner in world.built.owners}
    vectors = {owner: world.libraries[owner].profile().vectors for owner in world.built.owners}
    paragraphs = {owner: world.libraries[owner].paragraphs for owner in world.built.owners}
    differing = dimensions(seen, vectors, paragraphs, world.encoder.encode)
    constant, slope = nearness(learnt, vectors, paragraphs, world.encoder.encode)
    return {
        "coefficients": msgspec.to_builtins(fit(seen)),
        "without": without,
        "router": {"constant": constant, "slope": slope, "dimensions": differing},
    }


def _held_out(seen: Sequence[Seen], owner: str) -> dict[str, float]:
    """How coefficients that were fitted without a corpus serve its owner."""
    from manyminds.documents.evidence import Reader, answering

    reader = Reader(fit([one for one in seen if one.question.near != owner]))
    rows = []
    for one in seen:
        if one.question.near == owner == one.owner and one.features:
            claims = reader.ranked(one.found, one.features)
            support = reader.support(one.asked, one.found, claims)
            places = [p.id for p in one.found.passages]
            told = any(one.holds[places.index(claim.passage.id)] for claim in answering(claims))
            rows.append((one.question.answerable, told, support >= reader.threshold))
    known = [row for row in rows if row[0]]
    return {
        "tells": _mean([told for _, told, _ in known]),
        "right": _mean([told and given for _, told, given in known]),
        "declined": _mean([not given for answerable, _, given in rows if not answerable]),
    }


async def measure(
    world: World,
    packs: Path,
    *,
    wordings: int,
    others: int,
    models: Mapping[str, Expert],
    sample: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Asks everybody alone, everything pooled, and networks.

    Args:
        world: see `laid`.
        packs: where neighbours are made from.
        wordings: of each question of split test, of its four.
        others: owners beside those who know.
        models: that run here, which are asked some of the questions, alone and beside documents.
        sample: how many of split test, and as many of what may be learnt from.
        seed: of wordings and intervals.
        progress: told how far it is.
    """
    asked = _drawn(world.built.questions, wordings, seed)
    owners = world.built.owners
    found: dict[str, list[_Result]] = {}
    experts = {
        name: _expert(name, library, library.paragraphs, world.encoder)
        for name, library in world.libraries.items()
    }
    for n, name in enumerate((*owners, POOLED)):
        progress(f"ask {name}", n / (len(owners) + 1))
        found[name] = await _all_of(asked, partial(_alone, experts[name]))
    known = {name: experts[name] for name in owners}
    vectors = {name: world.libraries[name].profile().vectors for name in owners}
    network = _network(known, vectors, world.encoder)
    progress("ask the network", 0.0)
    found["network"] = await _all_of(asked, partial(_together, network))
    if others:
        beside, more = await asyncio.to_thread(_beside, world, packs, others, progress)
        network = _network({**known, **beside}, {**vectors, **more}, world.encoder)
        progress(f"ask the network of {len(known) + len(beside)}", 0.0)
        found["network_of_many"] = await _all_of(asked, partial(_together, network))
    beside_models: dict[str, Any] = {}
    if models and sample:
        panel = Panel(known, vectors, models)
        learnt, tested = (_sample(world.built.questions, test, sample, seed) for test in (False, True))
        beside_models = await mixed(panel, world.encoder, learnt, tested, seed, progress)
    return {
        "owners": len(owners),
        "paragraphs": {name: library.paragraphs for name, library in world.libraries.items()},
        "questions": len({one.question.id for one in asked}),
        "asked": len(asked),
        "answerable": sum(one.question.answerable for one in asked),
        "others": others,
        "seed": seed,
        "systems": {name: _figures(asked, results, seed) for name, results in found.items()},
        "sorts": _by_sort(asked, found),
        "models": beside_models,
    }


# --- asking ----------------------------------------------------------------------------------------


def _drawn(questions: Sequence[Question], wordings: int, seed: int) -> list[_Asked]:
    rng = np.random.default_rng(seed)
    return [
        _Asked(question, question.phrasings[int(i)])
        for question in questions
        if question.split == "test"
        for i in sorted(rng.permutation(len(question.phrasings))[:wordings])
    ]


def _sample(questions: Sequence[Question], test: bool, count: int, seed: int) -> list[tuple[Question, str]]:
    """So many questions of split test, or of the others, in one wording each."""
    rng = np.random.default_rng(seed)
    of = [question for question in questions if (question.split == "test") == test]
    drawn = [of[int(i)] for i in sorted(rng.permutation(len(of))[:count])]
    return [(question, question.phrasings[int(rng.integers(len(question.phrasings)))]) for question in drawn]


def _expert(name: str, library: Any, paragraphs: int, encoder: Encoder) -> Documents:
    card = Card(
        name, "documents", source=name, accuracy=0.0, offers=frozenset({"citations"}), paragraphs=paragraphs
    )
    return Documents(card, library, encoder.encode, cites="quote")


async def _all_of(asked: Sequence[_Asked], ask: Callable[[_Asked], Awaitable[_Result]]) -> list[_Result]:
    """In the order of the questions, a few at once."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(each: _Asked) -> _Result:
        async with room:
            return await ask(each)

    return list(await asyncio.gather(*map(one, asked)))


async def _alone(expert: Expert, one: _Asked) -> _Result:
    began_s, text, last = time.perf_counter(), "", None
    async with aclosing(expert.stream(_query(one, expert.card.name))) as chunks:
        async for chunk in chunks:
            text, last = text + chunk.text, chunk
    assert last is not None
    assert last.grounds is not None
    assert last.usage is not None
    grounds, usage = last.grounds, last.usage
    place = 0 if expert.card.name in (one.question.corpus, POOLED) else -1
    right, well, first_well = _graded(one, text, grounds.citations, declined=grounds.declined)
    return _Result(
        *(right, grounds.declined, well, first_well, place, 1, grounds.support),
        *(time.perf_counter() - began_s, usage.cpu_s, usage.cost_usd),
    )


async def _together(network: Gateway, one: _Asked) -> _Result:
    began_s, text, last = time.perf_counter(), "", None
    async with aclosing(network.stream(_query(one, "auto"))) as chunks:
        async for chunk in chunks:
            text, last = text + chunk.text, chunk
    assert last is not None
    assert last.usage is not None
    report = last.report
    assert isinstance(report, Report)
    first = [entry.expert for entry in report.panel]
    place = first.index(one.question.corpus) if one.question.corpus in first else -1
    citations = report.citations if isinstance(report.citations, tuple) else ()
    declined = report.declined is True
    right, well, first_well = _graded(one, text, citations, declined=declined)
    return _Result(
        *(right, declined, well, first_well, place, len(first), report.probability or 0.0),
        *(time.perf_counter() - began_s, last.usage.cpu_s, report.cost_usd),
    )


def _query(one: _Asked, model: str) -> Query:
    limits = Limits(grounded=True, cache="off")
    return Query((Message("user", one.text),), model=model, limits=limits, demands=frozenset({"citations"}))


def _graded(
    one: _Asked, text: str, citations: Sequence[Citation], *, declined: bool
) -> tuple[bool, bool, bool]:
    """Whether the answer is right, whether words that it cites bear that out, and whether the first do."""
    question = one.question
    if declined:
        return False, False, False
    known = (question.corpus, POOLED)
    well = [of.source in known and cited(question, [of], [of.quote]) for of in citations] or [False]
    return correct(question, text), any(well), well[0]


def _network(known: Mapping[str, Expert], vectors: "Mapping[str, Vectors]", encoder: Encoder) -> Gateway:
    """The gateway of a node that has these experts, as it serves."""
    index = Index(encoder.dimension)
    router = SkillRouter(index, encoder.encode)
    for name, expert in known.items():
        router.admit(expert.card, vectors=vectors[name])
    vote, select = Bounded(Grounded(Vote())), Bounded(Grounded(Select(encoder.encode)))
    combiners: dict[Strategy, Any] = {"vote": vote, "select": select, "race": Race(), "pass": Race()}
    parts = Parts(known, index, router, combiners, lambda *_: None, encoder.encode)
    card, defaults = Card("network", "gateway"), Limits(policy="auto", deadline_s=60.0)
    return Gateway(card, parts, Patience(), defaults)


# --- neighbours ------------------------------------------------------------------------------------


class _Opened:
    """The library of a neighbour, opened when it is asked; of all, the last few stay open."""

    def __init__(self, world: World, name: str, last: "OrderedDict[Path, Library]") -> None:
        self._folder = _folder(world, name)
        self._open = last

    def search(self, question: str, vector: "Vectors | None", limit: int = 8) -> Found:
        """See `Library.search`."""
        library = self._open.pop(self._folder, None) or Library(self._folder, None)
        found = library.search(question, vector, limit)
        self._open[self._folder] = library
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)[1].close()
        return found


def _folder(world: World, name: str) -> Path:
    return world.folder / "neighbours" / "libraries" / name


def _beside(
    world: World, packs: Path, count: int, progress: Progress
) -> "tuple[dict[str, Documents], dict[str, Vectors]]":
    """So many others as experts, and where their knowledge lies."""
    last: OrderedDict[Path, Library] = OrderedDict()
    made = {n.name: len(n.paragraphs) for n in _neighbours(world, packs, count, progress)}
    experts = {
        name: _expert(name, _Opened(world, name, last), paragraphs, world.encoder)
        for name, paragraphs in made.items()
    }
    return experts, {name: _profile(world, name) for name in made}


def _neighbours(world: World, packs: Path, count: int, progress: Progress) -> list[Neighbour]:
    """So many, written and indexed as owners are."""
    progress("write neighbours", 0.0)
    made = neighbours(world.built, packs, count)
    for n, one in enumerate(made):
        progress("index neighbours", n / count)
        root = world.folder / "neighbours" / "corpora" / one.name
        root.mkdir(parents=True, exist_ok=True)
        text = "\n\n".join(f"# {p.heading}\n\n{p.text}" for p in one.paragraphs)
        page = root / "notes.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
        with Library(_folder(world, one.name), world.encoder.encode) as library:
            library.sync(root)
    return made


def _profile(world: World, name: str) -> "Vectors":
    with Library(_folder(world, name), world.encoder.encode) as library:
        return library.profile().vectors


# --- figures ---------------------------------------------------------------------------------------


def _figures(asked: Sequence[_Asked], results: Sequence[_Result], seed: int) -> dict[str, Any]:
    """Shares in [0, 1], with 95% intervals over questions where an interval is given."""
    pairs = list(zip(asked, results, strict=True))
    known = [r for a, r in pairs if a.question.answerable]
    unknown = [r for a, r in pairs if not a.question.answerable]
    given = [r for r in known if not r.declined]
    fair = [r.right or (r.declined and not a.question.answerable) for a, r in pairs]
    accuracy = mean_interval(np.array(fair, float), seed)
    seconds = sorted(r.seconds for r in results)
    return {
        "accuracy": accuracy[0],
        "accuracy_ci95": accuracy[1:],
        "right": _mean([r.right for r in known]),
        "answered": _mean([not r.declined for r in known]),
        "declined": _mean([r.declined for r in unknown]),
        "cited": _mean([r.cited for r in given]),
        "cited_first": _mean([r.cited_first for r in given]),
        "right_of_given": _mean([r.right for r in given]),
        "ece": _calibration(results),
        "asked_first": _mean([0 <= r.place < _FIRST for r in known]),
        "asked_at_all": _mean([r.place >= 0 for r in known]),
        "calls": _mean([r.calls for r in results]),
        "seconds_p50": seconds[len(seconds) // 2],
        "cpu_s": _mean([r.cpu_s for r in results]),
        "cost_usd_per_1k": 1000 * _mean([r.cost_usd for r in results]),
    }


def _calibration(results: Sequence[_Result]) -> float | None:
    """Expected error of what answers say of themselves, declines apart; None where nobody answered."""
    given = [r for r in results if not r.declined]
    if not given:
        return None
    return calibration_error(np.array([r.probability for r in given]), np.array([r.right for r in given]))


def _by_sort(asked: Sequence[_Asked], found: Mapping[str, Sequence[_Result]]) -> dict[str, dict[str, float]]:
    """Of questions that nobody can answer, by why nobody can, how many were declined."""
    sorts = sorted({one.question.sort for one in asked if not one.question.answerable})
    return {
        name: {
            sort: _mean([r.declined for a, r in zip(asked, results, strict=True) if a.question.sort == sort])
            for sort in sorts
        }
        for name, results in found.items()
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
