"""Documents as files: the same sections in Markdown, HTML, Python or plain text."""

import html
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from manyminds.evals.knowledge.facts import Section

__all__ = ["Paragraph", "page", "paragraphs", "readable"]

_WIDTH: Final = 96
_REFERENCE: Final = re.compile(r"&(?=#?\w+;)")  # which Markdown would take for a character

_Told: TypeAlias = Callable[[str], str]
"""How a text is written down; "" leaves it out."""


class Paragraph(NamedTuple):
    """A paragraph as it was written: of which owner's document, under which headings."""

    corpus: str
    document: str
    heading: str
    text: str


def page(suffix: str, title: str, about: str, sections: Sequence[Section]) -> str:
    """One document. Sections of one heading that follow each other are its parts."""
    match suffix:
        case "html":
            told = _parts(
                sections, lambda h: f"<h2>{_escaped(h)}</h2>", lambda t: f"<h3>{_escaped(t)}</h3>", _tagged
            )
            body = "\n".join(told)
            return (
                '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
                f"<title>{_escaped(title)}</title></head>\n<body>\n"
                f"<h1>{_escaped(title)}</h1>\n<p>{_escaped(about)}</p>\n{body}\n</body>\n</html>\n"
            )
        case "md":
            told = _parts(sections, "## {}".format, "### {}".format)
            text = "\n\n".join([f"# {title}", about, *told]) + "\n"
            return _REFERENCE.sub("&amp;", text)
        case "py":
            return "\n\n\n".join([f'"""{title}.\n\n{about}\n"""', *_stubs(sections)]) + "\n"
        case _:
            top = f"{title}\n{'=' * len(title)}"
            told = _parts(sections, _underlined, lambda _: "", _wrapped)
            return "\n\n".join([top, _wrapped(about), *told]) + "\n"


def paragraphs(corpus: str, document: str, title: str, sections: Iterable[Section]) -> list[Paragraph]:
    """Those of a document, in its order."""
    return [
        Paragraph(corpus, document, " > ".join(filter(None, (title, s.heading, s.theme))), text)
        for s in sections
        for text in s.paragraphs
    ]


def readable(document: str, raw: str) -> str:
    """The words of a document with single spaces between them, whatever its format and its lines."""
    if document.endswith(".html"):
        raw = re.sub(r"<[^>]+>", " ", raw)
    if document.endswith((".html", ".md")):
        raw = html.unescape(raw)
    return " ".join(raw.split())


def _parts(sections: Sequence[Section], heading: _Told, theme: _Told, text: _Told = str) -> list[str]:
    """Headings, each told once for all sections of it that follow each other, themes, and paragraphs."""
    found, last = [], ""
    for section in sections:
        if section.heading != last:
            found.append(heading(section.heading))
        if section.theme:
            found.append(theme(section.theme))
        found += map(text, section.paragraphs)
        last = section.heading
    return [part for part in found if part]


def _underlined(heading: str) -> str:
    return f"{heading}\n{'-' * len(heading)}"


def _tagged(text: str) -> str:
    tag = "pre" if "\n" in text else "p"
    return f"<{tag}>{_escaped(text)}</{tag}>"


def _stubs(sections: Sequence[Section]) -> list[str]:
    """Functions that do nothing, under a heading's name each, with what is told of them."""
    told: dict[str, list[str]] = {}
    for section in sections:
        told.setdefault(section.heading, []).extend(section.paragraphs)
    found = []
    for heading, texts in told.items():
        body = textwrap.indent("\n\n".join(map(_wrapped, texts)), "    ").lstrip()
        found.append(f'def {heading}(*args, **kwargs):\n    r"""{body}\n    """')
    return found


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _wrapped(text: str) -> str:
    """Prose in lines of a readable width; what has lines of its own keeps them."""
    if "\n" in text:
        return text
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
