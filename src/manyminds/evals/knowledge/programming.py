"""An owner who knows Python's standard library: its own descriptions, of the Python that runs this."""

import re
import sys
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics
from typing import Final

from manyminds.evals.knowledge.docstrings import Function, functions, prose
from manyminds.evals.knowledge.facts import Corpus, Entry
from manyminds.evals.knowledge.manuals import ATTRIBUTES, entries

__all__ = ["VERSION", "corpus", "others", "rest"]

VERSION: Final = ".".join(map(str, sys.version_info[:3]))
"""Of the Python whose library is described: another tells other facts."""

_TOPIC_CHARS: Final = range(60, 1000)  # of a paragraph
_MODULES: Final = (
    "abc", "ast", "asyncio.runners", "base64", "bdb", "binascii", "bisect", "calendar", "code", "codecs",
    "codeop", "collections", "colorsys", "compileall", "contextlib", "copy", "copyreg", "dataclasses",
    "difflib", "dis", "email.utils", "enum", "filecmp", "fileinput", "fnmatch", "fractions", "functools",
    "genericpath", "getopt", "getpass", "gettext", "glob", "gzip", "hashlib", "heapq", "hmac", "html",
    "imaplib", "importlib.util", "inspect", "io", "ipaddress", "json", "keyword", "linecache", "locale",
    "logging", "logging.config", "lzma", "mailcap", "mimetypes", "operator", "os", "pathlib", "pdb", "pickle",
    "pickletools", "pkgutil", "platform", "plistlib", "posixpath", "pprint", "py_compile", "pyclbr", "pydoc",
    "quopri", "random", "re", "runpy", "secrets", "shlex", "shutil", "site", "smtplib", "socket", "ssl",
    "stat", "statistics", "string", "struct", "subprocess", "symtable", "sysconfig", "tarfile", "tempfile",
    "textwrap", "threading", "timeit", "tokenize", "traceback", "types", "typing", "unittest.util",
    "urllib.parse", "urllib.request", "uuid", "warnings", "wave", "weakref", "webbrowser", "xml.sax.saxutils",
    "zipapp",
)  # fmt: skip
_REST: Final = (
    "_pydecimal", "argparse", "asyncio", "bz2", "cgi", "cmd", "concurrent", "configparser", "csv",
    "ctypes", "curses", "datetime", "decimal", "distutils", "doctest", "ftplib", "graphlib", "http",
    "idlelib", "lib2to3", "mailbox", "multiprocessing", "netrc", "nntplib", "numbers", "optparse",
    "poplib", "profile", "pstats", "queue", "sched", "selectors", "shelve", "sqlite3", "telnetlib",
    "tkinter", "trace", "turtle", "unittest", "venv", "wsgiref", "xmlrpc", "zipfile", "zoneinfo",
)  # fmt: skip


def _described() -> list[Function]:
    """Functions of these modules, so far as this Python has them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for module in _MODULES:
        stem = root.joinpath(*module.split("."))
        path = next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)
        if path is not None:
            found += functions(module, path.read_text(encoding="utf-8"))
    return found


def others() -> list[Entry]:
    """What Python says of its language, topic by topic."""
    found = []
    for name, text in sorted(topics.items()):
        parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
        if kept := tuple(part for part in parts if len(part) in _TOPIC_CHARS):
            found.append(Entry(name, "the-language", (), {"": kept}))
    return found


def rest() -> list[Entry]:
    """What the modules that no corpus has say of themselves, package by package."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for name in _REST:
        paths = [*root.glob(f"{name}.py"), *sorted((root / name).glob("*.py"))]
        for path in paths:
            told = tuple(prose(path.read_text(encoding="utf-8")))
            found += [Entry(f"{name} {path.stem}", f"modules-of-{name}", (), {"": told})] if told else []
    return found


def corpus(folder: Path) -> Corpus:
    """The library of the Python that runs this; `folder` is not needed."""
    return Corpus(
        owner="programmer",
        about=(
            f"Functions of one module of Python {VERSION}'s standard library.",
            f"A part of the reference of Python {VERSION}.",
        ),
        attributes=ATTRIBUTES,
        entries=tuple(entries(_described())),
        invented=(
            "textwrap.unfurl",
            "shutil.transplant",
            "statistics.pendulum_mean",
            "random.zigzag",
            "heapq.sinkhole",
            "calendar.leapseconds",
            "urllib.parse.urlbraid",
        ),
        formats=("md", "html", "txt", "py"),
    )
