"""The site that `make docs` builds: no warning, no dead link, and nothing that is loaded from elsewhere."""

import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SVG = "{http://www.w3.org/2000/svg}"
DRAWN = sorted(path for path in (DOCS / "images").glob("*.svg") if path.read_text("utf-8").startswith("<svg"))

needs_generator = pytest.mark.skipif(
    find_spec("zensical") is None, reason="needs zensical: pip install 'manyminds[dev]'"
)


def build(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Builds the site of the docs in that folder, as `make docs` does."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def copied(folder: Path) -> Path:
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    return folder


class Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag in ("a", "area") and "href" in found:
            self.links.append(found["href"])
        elif "href" in found:  # link, use, image
            self.loads.append(found["href"])
        self.loads += [found[name] for name in ("src", "data", "poster", "action") if name in found]
        self.loads += [part.split()[0] for part in found.get("srcset", "").split(",") if part.strip()]
        self.loads += styled(found.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.loads += styled(data)


def styled(css: str) -> list[str]:
    """What a style sheet loads."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", css)
    return [one or other for one, other in found]


@cache
def page(path: Path) -> Page:
    return Page(path)


def dead(site: Path) -> Iterator[str]:
    """Links and parts that are not there, and parts that come from another host."""
    for path in sorted(site.rglob("*.html")):
        found = page(path)
        for kind, urls in (("link", found.links), ("part", found.loads)):
            for url in urls:
                if fault := wrong(url, kind, path, site):
                    yield f"{path.relative_to(site)}: {fault}"
    for path in sorted(site.rglob("*.css")):
        for url in styled(path.read_text(encoding="utf-8")):
            if not url.startswith("#") and (fault := wrong(url, "part", path, site)):
                yield f"{path.relative_to(site)}: {fault}"


def wrong(url: str, kind: str, path: Path, site: Path) -> str:
    """Says what is wrong with a URL on a page; "" where nothing is."""
    split = urlsplit(url)
    if split.scheme == "data" or (kind == "link" and split.scheme in ("http", "https")):
        return ""
    if split.scheme or split.netloc:
        return f"{kind} from elsewhere: {url}"
    target = (path.parent / unquote(split.path)).resolve() if split.path else path
    if split.path.startswith("/") and path.name == "404.html":  # served for any path, so from the top
        target = (site / unquote(split.path).lstrip("/")).resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return f"dead {kind}: {url}"
    if target.suffix == ".html" and unquote(split.fragment) not in page(target).anchors:
        return f"dead anchor: {url}"
    return ""


@needs_generator
def test_the_site_is_built_without_a_warning_or_a_dead_link(tmp_path: Path) -> None:
    built = build(copied(tmp_path))
    said = built.stdout + built.stderr
    assert built.returncode == 0, said
    assert "Warning" not in said
    site = tmp_path / "build/site"
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert {path for path in pages if not (site / path).exists()} == set()
    assert list(dead(site)) == []
    scripts = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    assert "mermaid" not in scripts, "its script would come from another host"


@needs_generator
@pytest.mark.parametrize(
    "text",
    ["[there](nowhere.md)", "[there](library.md#nowhere)", "[here](#nowhere)"],
    ids=["page", "anchor", "own anchor"],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, text: str) -> None:
    with (copied(tmp_path) / "docs/concepts.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    built = build(tmp_path)
    assert built.returncode != 0
    assert "does not exist" in built.stdout + built.stderr


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="b.html">', "dead link: b.html"),
        ('<a href="#c">', "dead anchor: #c"),
        ('<a href="../a.html">', "dead link: ../a.html"),
        ('<img src="a.svg">', "dead part: a.svg"),
        ('<img src="https://example.org/a.svg">', "part from elsewhere: https://example.org/a.svg"),
        ('<script src="//example.org/a.js"></script>', "part from elsewhere: //example.org/a.js"),
        ('<link href="http://example.org/a.css">', "part from elsewhere: http://example.org/a.css"),
        ("<style>a { background: url(https://example.org/a) }</style>", "part from elsewhere: https://"),
        ("<p style=\"background: url('//example.org/a')\">", "part from elsewhere: //example.org/a"),
    ],
)
def test_what_the_generator_does_not_see_is_found(tmp_path: Path, body: str, fault: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.html").write_text(f'<p id="b"></p><a href="#b"><a href="https://example.org">{body}')
    (tmp_path / "a.html").write_text("")
    [found] = dead(tmp_path / "site")
    assert fault in found


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entries: list[dict[str, object]]) -> Iterator[str]:
        for entry in entries:
            for below in entry.values():
                yield from pages(below) if isinstance(below, list) else [str(below)]

    named = list(pages(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_pictures_are_small_and_described(path: Path) -> None:
    assert path.stat().st_size < 30_000
    drawn = ET.fromstring(path.read_text(encoding="utf-8"))  # of this repository
    assert drawn.get("role") == "img"
    assert all(drawn.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text(encoding="utf-8"))
