"""Documents as files: the same sections in Markdown, HTML, Python or plain text."""

import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from manyminds.evals.knowledge.facts import Section

__all__ = ["Paragraph", "page", "paragraphs", "readable"]

_WIDTH: Final = 96
_REFERENCE: Final = re.compile(r"&(?=#?\w+;)")  # which Markdown would take for a character


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
            body = "\n".join(_html(sections))
            return (
                '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
                f"<title>{_escaped(title)}</title></head>\n<body>\n"
                f"<h1>{_escaped(title)}</h1>\n<p>{_escaped(about)}</p>\n{body}\n</body>\n</html>\n"
            )
        case "md":
            text = "\n\n".join([f"# {title}", about, *_headed(sections, "## ", "### ")]) + "\n"
            return _REFERENCE.sub("&amp;", text)
        case "py":
            return "\n\n\n".join([f'"""{title}.\n\n{about}\n"""', *_stubs(sections)]) + "\n"
        case _:
            top = f"{title}\n{'=' * len(title)}"
            return "\n\n".join([top, _wrapped(about), *_underlined(sections)]) + "\n"


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


def _headed(sections: Sequence[Section], one: str, two: str) -> list[str]:
    found, last = [], ""
    for section in sections:
        if section.heading != last:
            found.append(f"{one}{section.heading}")
        if section.theme:
            found.append(f"{two}{section.theme}")
        found += section.paragraphs
        last = section.heading
    return found


def _underlined(sections: Sequence[Section]) -> list[str]:
    found, last = [], ""
    for section in sections:
        if section.heading != last:
            found.append(f"{section.heading}\n{'-' * len(section.heading)}")
        found += [_wrapped(text) for text in section.paragraphs]
        last = section.heading
    return found


def _html(sections: Sequence[Section]) -> list[str]:
    found, last = [], ""
    for section in sections:
        if section.heading != last:
            found.append(f"<h2>{_escaped(section.heading)}</h2>")
        if section.theme:
            found.append(f"<h3>{_escaped(section.theme)}</h3>")
        for text in section.paragraphs:
            tag = "pre" if "\n" in text else "p"
            found.append(f"<{tag}>{_escaped(text)}</{tag}>")
        last = section.heading
    return found


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
