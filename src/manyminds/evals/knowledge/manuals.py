"""Manuals of functions: the words of those who wrote them, and questions from how they are built.

Knows no package. What is asked for is a default, a parameter, an error, a cited author or year, and which
function does what its summary says in other words.
"""

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from manyminds.evals.knowledge.docstrings import Function
from manyminds.evals.knowledge.facts import Attribute, Entry, Fact, draw

__all__ = ["ATTRIBUTES", "entries"]

ATTRIBUTES: Final[Mapping[str, Attribute]] = MappingProxyType(
    {
        "default": Attribute(
            "",
            (),
            (
                "What is the default value of {parameter} in {name}?",
                "If I call {name} and leave {parameter} out, what is used instead?",
                "{name} {parameter} when omitted",
                "Unless told otherwise, to what does {name} set its argument {parameter}?",
            ),
        ),
        "second": Attribute(
            "",
            (),
            (
                "What is the second parameter of {name} called?",
                "Which argument comes after the first one in a call of {name}?",
                "{name} signature argument number two",
                "By what name would I pass the second thing that {name} takes?",
            ),
        ),
        "purpose": Attribute(
            "",
            (),
            (
                "Which function of {module} can {task}?",
                "I need to {task}: what do I call?",
                "{keywords} function {module}",
                "What did the authors of {module} name the routine made to {task}?",
            ),
        ),
        "module": Attribute(
            "",
            (),
            (
                "In which module do I find the function {bare}?",
                "Where does {bare} have to be imported from?",
                "{bare} belongs to module",
                "What must stand before the dot to use {bare}?",
            ),
        ),
        "raised": Attribute(
            "",
            (),
            (
                "Which exception does {name} raise?",
                "What error should I be ready to catch around a call of {name}?",
                "{name} throws",
                "When {name} is not happy with its input, how does it fail?",
            ),
        ),
        "author": Attribute(
            "",
            (),
            (
                "Whose work is cited in the description of {name}?",
                "Which author wrote the source that {name} refers to?",
                "{name} bibliography writer",
                "On whose publication does {name} rest?",
            ),
        ),
        "year": Attribute(
            "",
            (),
            (
                "From which year is the publication that {name} cites?",
                "When did the work appear on which {name} is based?",
                "{name} bibliography year",
                "How old is the source named for {name}: when was it printed?",
            ),
        ),
    }
)

_VERBS: Final = {
    "return": "give back",
    "compute": "work out",
    "calculate": "work out",
    "find": "look up",
    "generate": "bring forth",
    "yield": "hand out one by one",
    "create": "set up",
    "make": "produce",
    "remove": "take away",
    "convert": "turn over",
    "determine": "tell",
    "check": "verify",
    "test": "find out",
    "get": "obtain",
    "construct": "build",
    "add": "put in",
    "read": "take in",
    "write": "put out",
    "open": "begin using",
    "parse": "make sense of",
    "copy": "duplicate",
    "replace": "exchange",
    "split": "break apart",
    "format": "lay out",
    "print": "show",
    "iterate": "step",
    "apply": "use",
    "decode": "undo the coding of",
    "encode": "put into coded form",
    "walk": "go through",
    "search": "hunt",
    "set": "fix",
    "run": "carry out",
    "produce": "make",
    "delete": "drop",
    "join": "combine",
    "decide": "tell",
}
_SYNONYMS: Final = {
    "string": "text",
    "strings": "texts",
    "node": "vertex",
    "nodes": "vertices",
    "edge": "link",
    "edges": "links",
    "graph": "network",
    "graphs": "networks",
    "dictionary": "mapping",
    "directory": "folder",
    "argument": "input",
    "arguments": "inputs",
    "given": "supplied",
    "specified": "supplied",
    "number": "count",
    "whether": "if",
    "contains": "has",
    "containing": "with",
    "sequence": "series",
    "character": "sign",
    "characters": "signs",
    "element": "item",
    "elements": "items",
    "maximum": "largest",
    "minimum": "smallest",
    "shortest": "briefest",
    "object": "thing",
}
_SKIPPED: Final = frozenset(
    ("a", "an", "the", "of", "in", "to", "is", "if", "by", "for", "and", "or", "from", "with")
)
_DULL: Final = ("None", "True", "False", "0", "1", "()", "''", '""', "[]", "{}")
_DEFAULT: Final = re.compile(r"-?\d[\w.+-]*|'[\w .,:%/-]{2,30}'|[A-Z_]{4,}|\w+\.[A-Z_]{4,}")
_YEAR: Final = re.compile(r"\b(?:1[89]\d\d|20[0-2]\d)\b")
_AUTHOR: Final = re.compile(
    r"(?:[A-Z]\.[ -]?){1,3}([A-Z][a-zé]{3,})\b|^([A-Z][a-zé]{3,}), [A-Z]\.|^[A-Z][a-z]+ ([A-Z][a-zé]{3,})\b"
)


def entries(functions: Sequence[Function], package: str = "") -> list[Entry]:
    """An entry for each function whose name is no other's; `package` is said before names, not modules."""
    often = Counter(function.name for function in functions)
    tasks = Counter(_task(function.summary) for function in functions)
    alone = {task for task, count in tasks.items() if task and count == 1}
    return [_entry(f, package, alone) for f in functions if often[f.name] == 1]


def _entry(function: Function, package: str, alone: Container[str]) -> Entry:
    prefix = package or function.module
    opening = f"{prefix}.{function.signature}: {function.summary}"
    parts = dict(function.parts)
    prose = {"": (opening, *parts.pop("", ()))} | parts
    found = list(_facts(function, prefix, opening, prose, alone))
    return Entry(
        name=function.name,
        document=function.module.replace(".", "-").replace("_", "-"),
        facts=tuple(fact for fact, _ in found),
        prose=prose,
        called=f"{prefix}.{function.name}",
        blank={fact.key: blank for fact, blank in found if blank is not None},
    )


def _facts(
    function: Function,
    prefix: str,
    opening: str,
    prose: Mapping[str, tuple[str, ...]],
    alone: Container[str],
) -> Iterator[tuple[Fact, tuple[str, str, str] | None]]:
    """Facts, each with what is to be exchanged where it is withheld; `alone` are tasks of one function."""
    rng = draw(prefix, function.name)
    usable = [(p, v) for p, v in function.defaults.items() if v not in _DULL and _DEFAULT.fullmatch(v)]
    if usable:
        parameter, value = rng.choice(usable)
        written = re.search(rf"\b{parameter}(?:: [^=,]+)? ?= ?{re.escape(value)}", opening)
        if written is not None:
            shorter = opening.replace(written[0], f"{parameter}=...")
            golds = (value.strip("'"),)
            yield Fact("default", value, golds, {"parameter": parameter}, opening), ("", opening, shorter)
    if len(function.parameters) > 1 and len(function.parameters[1]) > 3:
        yield Fact("second", "", (function.parameters[1],), said=opening), None
    if (task := _task(function.summary)) is not None and task in alone:
        keywords = " ".join(sorted({w for w in re.findall(r"[\w-]+", task) if w.lower() not in _SKIPPED}))
        hints = {"module": prefix, "task": task, "keywords": keywords}
        yield Fact("purpose", "", (function.name,), hints, opening), None
    if prefix == function.module and len(function.name) > 5:
        yield Fact("module", "", (function.module,), {"bare": function.name}, opening), None
    raised = prose.get("Raises", ())
    if len(raised) == 1 and (error := re.match(r"(\w+)(?: :)?: ", raised[0])):
        yield Fact("raised", "", (error[1],), said=raised[0]), ("Raises", raised[0], "")
    cited = prose.get("References", ())
    if len(cited) == 1:
        blank = ("References", cited[0], "")
        years = set(_YEAR.findall(cited[0]))
        if len(years) == 1:
            yield Fact("year", "", tuple(years), said=cited[0]), blank
        if author := _AUTHOR.search(cited[0]):
            yield Fact("author", "", (next(filter(None, author.groups())),), said=cited[0]), blank


def _task(summary: str) -> str | None:
    """What the first sentence says that a function does, in other words; None where it is said otherwise."""
    sentence = re.split(r"(?<=[a-z)`])\.(?:\s|$)", summary)[0].rstrip(".")
    first, _, rest = sentence.partition(" ")
    verb = first.lower()
    verb = verb if verb in _VERBS else verb.removesuffix("s")
    if verb not in _VERBS or not 3 < len(rest.split()) < 30:
        return None
    changed = [_SYNONYMS.get(word, word) for word in re.split(r"(\W+)", rest.replace("`", ""))]
    return f"{_VERBS[verb]} {''.join(changed)}"
