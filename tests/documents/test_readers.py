"""Each kind of file to blocks, and what is no document refused."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.documents.readers import decoded, read, refusal
from manyminds.errors import DocumentsError
from tests.documents.papers import pdf, word


def blocks(name: str, content: str | bytes) -> list[tuple[str, str]]:
    raw = content.encode() if isinstance(content, str) else content
    return [(" > ".join(block.headings), block.text) for block in read(name, raw)]


# --- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_is_read_in_its_encoding(encoding: str) -> None:
    assert decoded("Käse für Zoë – 5 €, told as it was.\r\nTwo".encode(encoding)) == (
        "Käse für Zoë – 5 €, told as it was.\nTwo"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"MZ\0\0" * 9, "zero bytes"),
        (bytes(range(1, 128)) * 9, "too many of its characters are none"),
        ("Привет, как дела".encode("koi8-r"), "neither UTF-8 nor Windows-1252"),
        ("plain".encode("utf-32-le"), "zero bytes"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(DocumentsError, match=why):
        read("a.txt", content)


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_refused(content: bytes) -> None:
    try:
        read("a.txt", content)
    except DocumentsError:
        assert content


def test_lines_of_a_sentence_are_joined_and_those_of_a_list_are_not() -> None:
    wrapped = "This line is so long that it was broken where the margin was,\nand goes on in the next."
    assert blocks("a.txt", f"{wrapped}\n\n- one\n- two\n \nlast") == [
        ("", wrapped.replace("\n", " ")),
        ("", "- one\n- two"),
        ("", "last"),
    ]


def test_the_underlined_are_headings() -> None:
    text = "=====\nTitle\n=====\n\nIntro.\n\nPart\n----\nBody.\n\nOther\n-----\n\nMore.\n"
    assert blocks("a.rst", text) == [
        ("Title", "Intro."),
        ("Title > Part", "Body."),
        ("Title > Other", "More."),
    ]


@pytest.mark.parametrize("name", ["a.txt", "README", "b.unknown", "c.md", "d.html", "e.py", "f.csv", "g.rs"])
def test_nothing_is_nothing(name: str) -> None:
    assert blocks(name, "") == []
    assert blocks(name, "\n \n") == []


def test_pictures_archives_and_keys_are_refused_by_their_names() -> None:
    assert refusal("a/b.JPG") == "a .jpg file is of no kind that is read"
    assert refusal("server.key")
    assert refusal("a/server.pem")
    assert refusal("a.txt") == refusal("README") == refusal("jpg") == ""


# --- Markdown --------------------------------------------------------------------------------------

MARKDOWN = """---
title: settings
---
# Guide

Some *marked* `words` and a [link](https://example.org).
Still the same.

## Steps

1. First
2. Second
   - inner

| name | size |
|------|------|
| moon | 3474 |
| sun  |      |

### Code

```python
def f():

    return 1
```

## Empty
"""


def test_markdown_keeps_its_structure() -> None:
    assert blocks("a.md", MARKDOWN) == [
        ("Guide", "Some marked words and a link. Still the same."),
        ("Guide > Steps", "1. First"),
        ("Guide > Steps", "2. Second"),
        ("Guide > Steps", "  - inner"),
        ("Guide > Steps", "name: moon; size: 3474"),
        ("Guide > Steps", "name: sun"),
        ("Guide > Steps > Code", "def f():\n\n    return 1"),
        ("Guide", "Empty"),
    ]


# --- HTML ------------------------------------------------------------------------------------------

HTML = """<!DOCTYPE html><html><head><title>The page</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><h1>Moon</h1><p>A <b>rock</b> that
circles&nbsp;the earth.<script>alert("x")</script> Yes.</p>
<h2>Tides</h2><ul><li>High</li><li>Low <p>and slow</p></li></ul>
<table><tr><th>day</th><th>hour</th></tr><tr><td>Monday</td><td>3</td></tr></table>
<pre>  x = 1
  y = 2</pre>tail<br>line</body></html>"""


def test_html_keeps_its_structure_and_drops_what_nobody_reads() -> None:
    assert blocks("a.html", HTML) == [
        ("Moon", "A rock that circles the earth. Yes."),
        ("Moon > Tides", "- High"),
        ("Moon > Tides", "- Low"),
        ("Moon > Tides", "and slow"),
        ("Moon > Tides", "day: Monday; hour: 3"),
        ("Moon > Tides", "  x = 1\n  y = 2"),
        ("Moon > Tides", "tail\nline"),
    ]


def test_a_page_without_headings_stands_under_its_title() -> None:
    assert blocks("a.htm", "<title>T</title><p>Words") == [("T", "Words")]
    page = '<meta charset="iso-8859-2"><p>\u0141\xf3d\u017a'.encode("iso-8859-2")
    assert blocks("a.html", page) == [("", "\u0141\xf3d\u017a")]


def test_html_opens_and_expands_nothing() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'
    text = str(blocks("a.html", f"{bomb}<p>It says &b; and &c; here"))
    assert "haha" not in text
    assert "root:" not in text


def test_deep_html_does_no_harm() -> None:
    assert "hidden" not in str(blocks("a.html", "<script>hidden</script>"))
    try:
        deep = blocks("a.html", "<p>first</p>" + "<div>" * 100_000 + "inside" + "</div>" * 100_000)
    except (DocumentsError, RecursionError):
        return
    assert ("", "first") in deep


# --- PDF and DOCX ----------------------------------------------------------------------------------


def test_a_pdf_keeps_pages_bookmarks_and_sentences() -> None:
    content = pdf(
        [["The moon circles the earth once in twenty-", "seven days.", "Tides follow it."], ["Second page."]],
        ["Moon", "More"],
    )
    assert blocks("a.pdf", content) == [
        ("Moon", "The moon circles the earth once in twentyseven days."),
        ("Moon", "Tides follow it."),
        ("More", "Second page."),
    ]


def test_a_pdf_without_text_says_so() -> None:
    with pytest.raises(DocumentsError, match="no text"):
        read("a.pdf", pdf([[]]))


def test_a_word_document_keeps_its_structure() -> None:
    parts = [
        ("Title", "Guide"),
        ("Normal", "Intro."),
        ("Heading 1", "Steps"),
        ("List Bullet", "First"),
        ("Heading 2", "Sizes"),
    ]
    assert blocks("a.docx", word(parts, [["name", "size"], ["moon", "3474"]])) == [
        ("Guide", "Intro."),
        ("Guide > Steps", "- First"),
        ("Guide > Steps > Sizes", "name: moon; size: 3474"),
    ]


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("word/document.xml", b"\0" * 20_000_000)
    with pytest.raises(DocumentsError, match=r"would inflate to 20 MB"):
        read("a.docx", file.getvalue())
    with pytest.raises(DocumentsError, match="no Word document"):
        read("a.docx", b"PK\3\4 nothing")


# --- source code -----------------------------------------------------------------------------------

PYTHON = '''"""A module."""
import os


# Why it is there.
@cache
def f(x):
    def inner():
        return 1

    return x


class C:
    """A class."""

    a = 1

    def m(self):
        return self.a


f(1)
'''


def test_python_is_read_by_its_definitions() -> None:
    assert blocks("a.py", PYTHON) == [
        ("", '"""A module."""\nimport os'),
        ("f", "# Why it is there.\n@cache\ndef f(x):\n    def inner():\n        return 1\n\n    return x"),
        ("C", 'class C:\n    """A class."""'),
        ("C", "    a = 1"),
        ("C > m", "    def m(self):\n        return self.a"),
        ("", "f(1)"),
    ]
    assert blocks("a.py", "def broken(:\n    pass") == [("broken", "def broken(:\n    pass")]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.c", "#include <x.h>\n\n/* Adds. */\nint add(int a)\n{\n  return f(a);\n}\n", {"add"}),
        ("a.go", "package x\n\nfunc Add(a int) int {\n\treturn a\n}\n", {"Add"}),
        ("a.rs", "struct P { x: i32 }\n\nfn add(a: i32) -> i32 {\n    a\n}\n", {"P", "add"}),
        ("a.js", "function add(a) {\n  return a;\n}\nclass Q {}\n", {"add", "Q"}),
        ("A.java", "class A {\n  int add(int a) {\n    return a;\n  }\n}\n", {"A", "A > add"}),
        ("a.sh", "add() {\n  echo 1\n}\n", {"add"}),
    ],
)
def test_other_languages_are_read_by_their_definitions(name: str, text: str, names: set[str]) -> None:
    found = blocks(name, text)
    assert names <= {heading for heading, _ in found}
    assert "".join("".join(body.split()) for _, body in found) == "".join(text.split())


def test_tables_and_notebooks() -> None:
    assert blocks("a.csv", 'name,size\nmoon,3474\n"a, b",\n') == [
        ("", "name: moon; size: 3474"),
        ("", "name: a, b"),
    ]
    cells = '{"cells": [{"cell_type": "markdown", "source": ["# Head\\n", "Words"]},'
    cells += '{"cell_type": "code", "source": "x = 1", "outputs": [{"data": "long"}]}]}'
    assert blocks("a.ipynb", cells) == [("Head", "Words"), ("Head", "x = 1")]
    with pytest.raises(DocumentsError, match="no Jupyter notebook"):
        read("a.ipynb", b"[1")
