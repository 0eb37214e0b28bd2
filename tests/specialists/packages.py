"""Small packages in place of those that are downloaded."""

import gzip
import hashlib
import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from experiments.specialists.corpora.sources import Package, Recipe

Entry = tuple[str, bytes] | tarfile.TarInfo


def prose(seed: str, n_words: int = 120) -> str:
    """Words in lines of ten; no two seeds share a run of five."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnop", k=7)) for _ in range(n_words)]
    return "".join(" ".join(words[i : i + 10]) + "\n" for i in range(0, n_words, 10))


def wheel(
    folder: Path, members: Mapping[str, bytes] | Mapping[str | zipfile.ZipInfo, bytes], name: str = "tiny"
) -> Package:
    path = folder / f"{name}-1.0.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    raw = path.read_bytes()
    return Package(name, "1.0", hashlib.sha256(raw).hexdigest(), "MIT", "wheel", len(raw))


def deb(folder: Path, entries: Sequence[Entry], name: str = "small", version: str = "1.0-1") -> Package:
    """Made byte by byte, for dpkg-deb makes none that leads out of itself."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb, which Debian and Ubuntu have")
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar([("./control", control.encode())]),
        "data.tar.gz": _tar(entries),
    }
    raw = b"!<arch>\n"
    for part, content in parts.items():
        head = f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        raw += head + content + b"\n" * (len(content) % 2)
    (folder / f"{name}_{version}_all.deb").write_bytes(raw)
    return Package(name, version, hashlib.sha256(raw).hexdigest(), "MIT", "deb", len(raw))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def plain(*packages: Package) -> Recipe:
    return Recipe("c", packages, r".*\.h", "plain")


def _tar(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                head = tarfile.TarInfo(entry[0])
                head.size = len(entry[1])
                archive.addfile(head, io.BytesIO(entry[1]))
    return gzip.compress(out.getvalue(), mtime=0)
