"""A file's bytes to blocks, by what kind of file it is. Untrusted: runs in `worker`. Reads no other file."""

import codecs
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath as Path
from typing import Final

from manyminds.documents import markup, office, source
from manyminds.documents.outline import Outline
from manyminds.documents.split import Block
from manyminds.errors import DocumentsError

__all__ = ["READERS", "decoded", "read", "refusal"]

READERS: Final = 1
"""Grows when readers make something else of the same file: then all are read anew."""

_MOST_ACCENTS: Final = 0.3  # of the characters of a text
_MOST_ODD: Final = 0.02  # of the characters of a text: control characters


def read(name: str, content: bytes) -> list[Block]:
    """The blocks of a file of this name. Raises: DocumentsError, which says in plain words why not."""
    blocks = _reader(_suffix(name))(content)
    return [Block(tuple(map(_clean, block.headings)), _clean(block.text)) for block in blocks]


def refusal(name: str) -> str:
    """Why no file of such a name is read; "" where it may be. Pure."""
    suffix = _suffix(name)
    return f"a .{suffix} file is of no kind that is read" if suffix in _BINARY else ""


def _suffix(name: str) -> str:
    return Path(name.lower()).suffix.removeprefix(".")


def decoded(content: bytes) -> str:
    """Text of unknown encoding: UTF-8, UTF-16 with a byte order mark, or else Windows-1252.

    Raises: DocumentsError where it is none.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        if b"\0" in content:
            raise DocumentsError("it is no text: it has zero bytes")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", "replace")
            _check_western(text)
    sample = text[:100_000]
    odd = sum(1 for letter in sample if letter == "�" or (letter < " " and letter not in "\t\n\r\f\x1b\b"))
    if odd > _MOST_ODD * len(sample):
        raise DocumentsError("it is no text: too many of its characters are none")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_western(text: str) -> None:
    """Raises: DocumentsError where what was read as Windows-1252 is in no language that uses it."""
    letters = [letter for letter in text[:100_000] if not letter.isspace()]
    if sum(letter > "\x7f" for letter in letters) > _MOST_ACCENTS * len(letters):
        raise DocumentsError("its encoding is not known: it is neither UTF-8 nor Windows-1252")


def _clean(text: str) -> str:
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode()


def _reader(suffix: str) -> Callable[[bytes], Sequence[Block]]:
    match suffix:
        case "htm" | "html" | "xhtml":
            return markup.html
        case "pdf":
            return office.pdf
        case "docx" | "docm":
            return office.docx
        case "md" | "markdown" | "mkd":
            return lambda content: markup.markdown(decoded(content))
        case "py" | "pyi":
            return lambda content: source.python(decoded(content))
        case "csv" | "tsv":
            return lambda content: source.table(decoded(content))
        case "ipynb":
            return lambda content: source.notebook(decoded(content))
        case "rst":
            return lambda content: _underlined(decoded(content))
        case _ if suffix in source.LANGUAGES:
            return lambda content: source.code(suffix, decoded(content))
    return lambda content: _plain(decoded(content))


def _plain(text: str) -> list[Block]:
    """Text between empty lines; a line break within a sentence is none."""
    return [Block((), _flowing(part)) for part in _EMPTY_LINES.split(text) if part.strip()]


def _flowing(part: str) -> str:
    """The lines of a paragraph as one, unless they are indented or short, as tables, lists and code are."""
    lines = [line.rstrip() for line in part.strip("\n").split("\n")]
    full = [line for line in lines[:-1] if len(line) >= _FULL]
    if any(line.startswith((" ", "\t", "-", "*")) for line in lines) or 2 * len(full) < len(lines) - 1:
        return "\n".join(lines)
    return " ".join(lines)


def _underlined(text: str) -> list[Block]:
    """reStructuredText: as plain text, with headings that are underlined."""
    outline = Outline()
    levels: list[str] = []
    for part in _EMPTY_LINES.split(text):
        lines = part.strip("\n").split("\n")
        while len(lines) >= 2 and lines[0] and set(lines[0]) <= set(_RULES) and _is_rule(lines[0], lines[1]):
            lines = lines[1:]
        while len(lines) >= 2 and _is_rule(lines[1], lines[0]):
            if lines[1][0] not in levels:
                levels.append(lines[1][0])
            outline.head(levels.index(lines[1][0]) + 1, lines[0])
            lines = lines[2:]
        outline.add(_flowing("\n".join(lines)))
    return outline.end()


def _is_rule(line: str, heading: str) -> bool:
    rule = line.rstrip()
    return (
        len(rule) > 2 and rule[0] in _RULES and len(set(rule)) == 1 and 0 < len(heading.strip()) <= len(rule)
    )


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_EMPTY_LINES: Final = re.compile(r"\n(?:[ \t\f]*\n)+|\f")
_FULL: Final = 50  # characters of a line that was broken because it was long
_RULES: Final = "=-~^\"'`#*+.:"
_SUFFIXES: Final = """
    7z a aac apk avi avif bin bmp bz2 class db deb dll doc dmg ear epub exe flac gguf gif gz heic ico
    iso jar jks jpeg jpg jp2 kdbx key lib m4a m4v mkv mov mp3 mp4 mpeg mpg npy npz o odp ods odt ogg
    onnx opus otf parquet p12 pem pfx pkl png ppt pptx psd pt pyc pyd rar rpm rtf safetensors so sqlite
    tar tgz tif tiff ttf war wasm wav webm webp whl wma wmv woff woff2 xls xlsx xz zip zst
"""
_BINARY: Final = frozenset(_SUFFIXES.split())
