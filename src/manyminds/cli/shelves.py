"""What is known of an expert's documents: for `experts list`, and for `doctor`, which looks closer."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from manyminds.config import ExpertEntry
    from manyminds.documents import Library
    from manyminds.types import Embed

__all__ = ["flaw_of", "state_of", "told"]

_SAME: Final = 0.99  # cosine of a paragraph with itself, by one encoder


def state_of(home: Path, entry: "ExpertEntry") -> dict[str, Any] | None:
    """How many files and paragraphs were read, and what was left out; None where nothing was.

    Where that cannot be read, `problem` says why.
    """
    from manyminds.errors import DocumentsError
    from manyminds.node.following import folder_of

    folder = folder_of(home, entry.name)
    if not folder.exists():
        return None
    try:
        return _read(folder, entry)
    except (DocumentsError, OSError) as error:
        return {"name": entry.name, "path": entry.path, "problem": str(error)}


def _read(folder: Path, entry: "ExpertEntry") -> dict[str, Any]:
    from manyminds.documents import Library

    with closing(Library(folder, None)) as library:
        documents = library.documents()
        return {
            "name": entry.name,
            "path": entry.path,
            "documents": sum(not document.skipped for document in documents),
            "paragraphs": library.paragraphs,
            "skipped": {document.path: document.skipped for document in documents if document.skipped},
            "withdrawn": list(library.withdrawn),
        }


def told(entry: "ExpertEntry", state: dict[str, Any] | None) -> str:
    """The same in words."""
    from manyminds.documents import counted

    if state is None:
        return f"not read yet: run `manyminds experts index {entry.name}`"
    if "problem" in state:
        return str(state["problem"]).removesuffix(".")
    left_out = [
        f"{len(state[what]):,} {words}"
        for what, words in (("skipped", "left out"), ("withdrawn", "withdrawn"))
        if state[what]
    ]
    read_of = f"{counted(state['paragraphs'], 'paragraph')} of {counted(state['documents'], 'document')}"
    return f"{', '.join([read_of, *left_out])}, from {entry.path}"


def flaw_of(home: Path, entry: "ExpertEntry", embed: "Embed | None") -> str:
    """What keeps it from answering, and what to do; "" where nothing does.

    Raises: DocumentsError, OSError.
    """
    from manyminds.documents import Library
    from manyminds.node.following import folder_of

    again = f"`manyminds experts index {entry.name}`"
    if not Path(entry.path).exists():
        return f"{entry.path} is not there: put it back, or `manyminds experts remove {entry.name}`"
    if embed is None:
        return "the encoder is not here: run `manyminds pull all-minilm-l6-v2`"
    folder = folder_of(home, entry.name)
    if not folder.exists():
        return f"not read yet: run {again}"
    with closing(Library(folder, None)) as library:
        if not library.paragraphs:
            return f"no paragraph was read in {entry.path}: {again} says why"
        if not _is_found(library, embed):
            return f"its vectors are damaged, or of another encoder: {again} makes them anew"
    return ""


def _is_found(library: "Library", embed: "Embed") -> bool:
    """Whether a paragraph is found by what this encoder makes of it."""
    found = library.search("a", embed(["a"])[0], 1)
    if not found.passages:
        return False
    [first] = found.passages
    text = f"{first.heading}\n{first.text}" if first.heading else first.text
    again = library.search(first.text, embed([text])[0], 1)
    return any(passage.cosine > _SAME for passage in again.passages)
