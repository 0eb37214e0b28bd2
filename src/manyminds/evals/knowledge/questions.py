"""Questions about what owners know, and as many of what nobody knows as a fifth of all. Reads no source.

What is withheld is left out of the documents, and whether it is gone is checked in every paragraph: none that
names the entity, in its heading or in its words, has the answer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from manyminds.evals.knowledge.elsewhere import topics
from manyminds.evals.knowledge.facts import Corpus, Entry, Fact, draw, sections
from manyminds.evals.knowledge.pages import Paragraph, page, paragraphs, readable
from manyminds.evals.knowledge.words import holds_any, words

__all__ = ["Document", "Question", "Sort", "spread", "told_anyway", "written"]

Sort = Literal["answerable", "entity withheld", "fact withheld", "nowhere"]

_ANSWERABLE: Final = 165  # of a corpus
_WITHHELD: Final = 14  # of a corpus, of either sort
_INVENTED: Final = 7  # of a corpus; as many again are of topics that nobody covers
_OF_ENTITY: Final = 3  # questions at most
_SAME: Final = 5  # questions of a corpus at most that have one answer
_SPLITS: Final = ("calibration", "test", "calibration", "test", "validation")


class Question(Struct, frozen=True):
    """One question in several wordings.

    Attributes:
        id: the same at every call.
        corpus: the owner who knows; "" where nobody does.
        phrasings: at least three, of different words.
        golds: spellings of the right answer; of what is withheld, what must not be had; else empty.
        document: path in the owner's folder; "" where nobody knows.
        proof: words of that document, and of no other, that bear the answer out.
        answerable: whether anybody knows.
        sort: why nobody knows.
        split: calibration, validation or test; all questions of an entity are in one.
        near: whose field it is of, also where nothing is known there; "" of topics that nobody covers.
        entity, key: whom or what it is about, and which fact of that.
    """

    id: str
    corpus: str
    phrasings: tuple[str, ...]
    golds: tuple[str, ...]
    document: str
    proof: str
    answerable: bool
    sort: Sort
    split: str
    near: str
    entity: str
    key: str


class Document(NamedTuple):
    """A file of an owner, and its paragraphs."""

    corpus: str
    path: str
    text: str
    paragraphs: tuple[Paragraph, ...]


class _Plan(NamedTuple):
    """What of a corpus is told: entries in order, those left out, the fact left out of an entry."""

    kept: tuple[Entry, ...]
    left_out: tuple[Entry, ...]
    lacking: dict[str, Fact]
    split: dict[str, str]


def written(corpora: Sequence[Corpus], seed: int) -> tuple[list[Document], list[Question]]:
    """The documents of all owners, and the questions about them."""
    documents: list[Document] = []
    known: list[Question] = []
    unknown: list[tuple[Corpus, list[Question]]] = []
    for corpus in corpora:
        plan = _planned(corpus, seed)
        files, answerable = _documents(corpus, plan, seed)
        documents += files
        known += _chosen(corpus, answerable, seed)
        unknown.append((corpus, _withheld(corpus, plan, seed)))
    told = spread(paragraph for document in documents for paragraph in document.paragraphs)
    for corpus, questions in unknown:
        for sort in ("entity withheld", "fact withheld"):
            gone = (q for q in questions if q.sort == sort and not told_anyway(q, told))
            known += islice(gone, _WITHHELD)
        known += _invented(corpus, seed)
    known += _elsewhere(len(corpora) * _INVENTED, seed)
    return documents, known


def spread(paragraphs: Iterable[Paragraph]) -> list[tuple[str, str]]:
    """Of each paragraph its words, those of its headings with them, and its text."""
    return [(words(f"{p.heading} . {p.text}"), p.text) for p in paragraphs]


def told_anyway(question: Question, told: Iterable[tuple[str, str]]) -> bool:
    """Whether a paragraph of those that `spread` gave names the entity and has the answer all the same."""
    name = words(question.entity)
    return any(name in said and holds_any(text, question.golds) for said, text in told)


def _planned(corpus: Corpus, seed: int) -> _Plan:
    """Who and what is left out: twice as much as there are questions, for some are told elsewhere."""
    rng = draw(seed, corpus.owner, "plan")
    order = rng.sample(corpus.entries, len(corpus.entries))
    left_out = tuple(entry for entry in order if len(entry.facts) > 1)[: 2 * _WITHHELD]
    gone = {entry.name for entry in left_out}
    kept = tuple(entry for entry in order if entry.name not in gone)
    lacking: dict[str, Fact] = {}
    for entry in kept:
        possible = [fact for fact in entry.facts if not fact.said or fact.key in entry.blank]
        if possible and len(entry.facts) > 1 and len(lacking) < 2 * _WITHHELD:
            lacking[entry.name] = rng.choice(possible)
    split = {e.name: _SPLITS[n % len(_SPLITS)] for n, e in enumerate(left_out)}
    split |= {e.name: _SPLITS[n % len(_SPLITS)] for n, e in enumerate(e for e in kept if e.name in lacking)}
    split |= {
        e.name: _SPLITS[n % len(_SPLITS)] for n, e in enumerate(e for e in kept if e.name not in lacking)
    }
    return _Plan(kept, left_out, lacking, split)


def _documents(corpus: Corpus, plan: _Plan, seed: int) -> tuple[list[Document], list[Question]]:
    """The files, and a question for every fact that is in them."""
    by_document: dict[str, list[Entry]] = defaultdict(list)
    for entry in plan.kept:
        by_document[entry.document].append(entry)
    documents, questions = [], []
    for stem, entries in sorted(by_document.items()):
        rng = draw(seed, corpus.owner, stem)
        suffix = rng.choice(corpus.formats)
        path, title = f"{stem}.{suffix}", stem.rpartition("/")[2].replace("-", " ").capitalize()
        parts = []
        for entry in entries:
            lacking = plan.lacking.get(entry.name)
            of_entry = sections(corpus, entry, seed, [lacking.key] if lacking else [])
            parts += of_entry
            proofs = {key: proof for section in of_entry for key, proof in section.proofs.items()}
            questions += [
                _question(corpus, entry, fact, plan, "answerable", path, proofs[fact.key])
                for fact in entry.facts
                if fact.key in proofs
            ]
        text = page(suffix, title, rng.choice(corpus.about), parts)
        documents.append(
            Document(corpus.owner, path, text, tuple(paragraphs(corpus.owner, path, title, parts)))
        )
    folded = [readable(document.path, document.text) for document in documents]
    alone = [q for q in questions if sum(q.proof in text for text in folded) == 1]
    return documents, alone


def _question(
    corpus: Corpus, entry: Entry, fact: Fact, plan: _Plan, sort: Sort, path: str = "", proof: str = ""
) -> Question:
    key = f"{corpus.owner}-{_slug(entry.name)}-{_slug(fact.key)}"
    asked = corpus.attributes[fact.key].asked
    name = entry.called or entry.name
    turn = draw(key).randrange(len(asked))
    phrasings = tuple(text.format(name=name, **fact.hints) for text in asked[turn:] + asked[:turn])
    answerable = sort == "answerable"
    return Question(
        id=key,
        corpus=corpus.owner if answerable else "",
        phrasings=phrasings,
        golds=fact.golds,
        document=path,
        proof=proof,
        answerable=answerable,
        sort=sort,
        split=plan.split[entry.name],
        near=corpus.owner,
        entity=entry.name,
        key=fact.key,
    )


def _chosen(corpus: Corpus, questions: Sequence[Question], seed: int) -> list[Question]:
    """Of all that could be asked, about as many of each attribute; few of an entity, few with one answer."""
    rng = draw(seed, corpus.owner, "questions")
    of_key: dict[str, list[Question]] = defaultdict(list)
    for question in rng.sample(questions, len(questions)):
        if not any(holds_any(text, question.golds) for text in question.phrasings):
            of_key[question.key].append(question)
    asked: Counter[str] = Counter()
    answers: Counter[str] = Counter()

    def fits(question: Question) -> bool:
        return asked[question.entity] < _OF_ENTITY and answers[question.golds[0]] < _SAME

    chosen: list[Question] = []
    while of_key and len(chosen) < _ANSWERABLE:
        for key in sorted(of_key):
            fit = next((n for n, q in enumerate(of_key[key]) if fits(q)), None)
            if fit is None:
                del of_key[key]
            elif len(chosen) < _ANSWERABLE:
                chosen.append(of_key[key].pop(fit))
                asked[chosen[-1].entity] += 1
                answers[chosen[-1].golds[0]] += 1
    return chosen


def _withheld(corpus: Corpus, plan: _Plan, seed: int) -> list[Question]:
    """One question for each entity that is left out, and for each of which a fact is."""
    rng = draw(seed, corpus.owner, "withheld")
    found = []
    for entry in plan.left_out:
        fit = [fact for fact in entry.facts if _fair(corpus, entry, fact, plan)]
        if fit:
            found.append(_question(corpus, entry, rng.choice(fit), plan, "entity withheld"))
    for entry in plan.kept:
        fact = plan.lacking.get(entry.name)
        if fact is not None and _fair(corpus, entry, fact, plan):
            found.append(_question(corpus, entry, fact, plan, "fact withheld"))
    return found


def _fair(corpus: Corpus, entry: Entry, fact: Fact, plan: _Plan) -> bool:
    """Whether the question does not tell its own answer."""
    question = _question(corpus, entry, fact, plan, "entity withheld")
    return not any(holds_any(text, question.golds) for text in question.phrasings)


def _invented(corpus: Corpus, seed: int) -> list[Question]:
    """The corpus's own questions, asked of entities that there are not."""
    rng = draw(seed, corpus.owner, "invented")
    plain = [
        key
        for key, of in sorted(corpus.attributes.items())
        if all("{" not in text.replace("{name}", "") for text in of.asked)
    ]
    found = []
    for n, name in enumerate(corpus.invented[:_INVENTED]):
        key = rng.choice(plain)
        found.append(
            _nowhere(name, key, corpus.owner, n, [a.format(name=name) for a in corpus.attributes[key].asked])
        )
    return found


def _elsewhere(count: int, seed: int) -> list[Question]:
    found = topics(seed)[:count]
    return [_nowhere(name, key, "", n, asked) for n, (name, key, asked) in enumerate(found)]


def _nowhere(name: str, key: str, near: str, n: int, asked: Sequence[str]) -> Question:
    return Question(
        id=f"{near or 'elsewhere'}-{_slug(name)}-{_slug(key)}",
        corpus="",
        phrasings=tuple(asked),
        golds=(),
        document="",
        proof="",
        answerable=False,
        sort="nowhere",
        split=_SPLITS[n % len(_SPLITS)],
        near=near,
        entity=name,
        key=key,
    )


def _slug(text: str) -> str:
    return "-".join(words(text).split())
