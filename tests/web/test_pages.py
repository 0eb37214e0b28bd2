"""The page and its files: their headers, and that nothing else is ever read."""

import gzip

import pytest

from manyminds.router.policy import POLICIES
from manyminds.web.app import App, Edge
from manyminds.web.pages import ASSETS, HOME, POLICY, pages
from tests.clock import run
from tests.network import network
from tests.web.client import Reply, call

EVERY = sorted(pages())
KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def get(path: str, method: str = "GET", **headers: str) -> Reply:
    edge = Edge(network(), POLICIES, list, lambda: True, 1, pages=pages())
    return run(call(App(edge), method, path, headers={n.replace("_", "-"): v for n, v in headers.items()}))


@pytest.mark.parametrize("path", EVERY)
def test_every_file_has_its_kind_and_is_kept_from_harm(path: str) -> None:
    reply = get(path)
    assert reply.status == 200
    kind = KINDS[path.rpartition(".")[2]] if path != HOME else "text/html"
    assert reply.headers["content-type"].partition(";")[0] == kind
    assert reply.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert {name: reply.headers[name] for name in ("x-content-type-options", "x-frame-options")} == {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    assert reply.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", EVERY)
def test_who_has_it_is_sent_nothing(path: str) -> None:
    plain, packed = get(path), get(path, accept_encoding="br, gzip;q=0.5")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["etag"] != packed.headers["etag"]
    for known in (plain.headers["etag"], f'"x", W/{plain.headers["etag"]}', "*"):
        again = get(path, if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", plain.headers["etag"])
        assert again.headers["content-security-policy"] == POLICY
    assert get(path, if_none_match='"x"').status == 200
    assert "content-encoding" not in get(path, accept_encoding="gzip;q=0, br").headers


def test_the_head_alone() -> None:
    head = get(HOME, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get(HOME).headers["content-length"]


@pytest.mark.parametrize(
    "name",
    [
        *("", "index.html", "nothing.js", "../pages.py", "..%2fpages.py", "%2e%2e/pages.py", "./app.css"),
        *("../../../../etc/passwd", "/etc/passwd", "static/index.html", "index.html%00.js", "..\\pages.py"),
    ],
)
def test_nothing_else_is_read(name: str) -> None:
    assert get(ASSETS + name).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_only_read(method: str) -> None:
    reply = get(HOME, method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


def test_a_name_pointed_at_this_machine_is_shown_no_page() -> None:
    assert get(HOME, host="evil.example").status == 403
