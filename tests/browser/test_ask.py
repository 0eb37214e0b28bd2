"""The Ask view in a real browser, on a node's double."""

import threading
from typing import Any

import pytest

from tests.browser.conftest import Complaints, faults
from tests.browser.stub import EXPERTS, Call, Script, Stub

QUESTION = "What is the capital of Australia?"


def ask(page: Any, question: str = QUESTION) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def answered(page: Any, turn: int = -1) -> Any:
    """The last answer, once it is whole."""
    page.locator(".answer[aria-busy=false]").nth(turn).wait_for()
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    return page.locator(".answer").nth(turn)


def lane(page: Any, expert: str) -> Any:
    return page.get_by_role("listitem").filter(has=page.locator("b", has_text=expert)).first


def test_lanes_fill_while_an_answer_is_made(page: Any, stub: Stub) -> None:
    slow = Call("spare", "bob", "Perhaps", status="cancelled", hedges="larch-8b", lost=True, planned=False)
    down = Call("down", "carol", "", status="failed", error="HTTP 500: out of memory")
    late = Call("sloth", "dave", "The cap", status="late")
    mute = Call("archive", "erin", "Nothing there.", declined=True)
    hold = threading.Event()
    stub.scripts["capital"] = Script((*EXPERTS, slow, down, late, mute), hold=hold)
    page.goto("/")
    page.get_by_label("Policy").select_option("max")
    ask(page)
    lane(page, "maple-small").get_by_text("first words").wait_for()
    assert "It is Canberra." in lane(page, "maple-small").inner_text()
    assert "expected 82%" in lane(page, "maple-small").inner_text()
    assert "beside larch-8b" in lane(page, "spare").inner_text()
    assert "asked" in lane(page, "down").inner_text()
    assert page.get_by_role("button", name="Stop").is_visible()
    assert faults(page) == []
    hold.set()
    answer = answered(page).inner_text()
    assert "The capital of Australia is Canberra." in answer
    for figure in ("80%", "93%", "$0.0018", "Owed to", "maple", "req-max-9"):
        assert figure in answer
    for expert, words in {
        "maple-small": ("done", "33%", "400 ms", "$0.00048", "first word after 120 ms"),
        "spare": ("cancelled: the other was first",),
        "down": ("failed", "HTTP 500: out of memory"),
        "sloth": ("late",),
        "archive": ("declined",),
    }.items():
        assert all(word in lane(page, expert).inner_text() for word in words), lane(page, expert).inner_text()
    assert faults(page) == []


def test_the_answer_is_said_once_and_its_shares_are_a_table(page: Any) -> None:
    page.goto("/")
    ask(page)
    answered(page)
    page.get_by_role("status").filter(has_text="Answer: The capital of Australia is Canberra").wait_for(
        state="attached"
    )
    shares = page.locator("table.legend tbody tr").all_inner_texts()
    assert [" ".join(row.split()) for row in shares] == ["maple 33%", "alice 26%", "own 21%", "library 20%"]
    assert page.locator("[aria-live=assertive]").count() == 0


def test_whoever_is_excluded_or_weighed_is_so_when_asked_again(page: Any, stub: Stub) -> None:
    page.goto("/")
    ask(page)
    answered(page)
    page.get_by_role("button", name="Adjust").click()
    page.get_by_role("button", name="Exclude sorrel-135m").click()
    weight = page.get_by_label("Weight of maple-small")
    weight.fill("2.5")
    assert faults(page) == []
    page.get_by_role("button", name="Ask again").click()
    page.locator(".turn").nth(1).wait_for()
    answered(page, 1)
    wish = stub.asked[1]["manyminds"]
    assert (wish["exclude"], wish["weights"]) == (["sorrel-135m"], {"maple-small": 2.5})
    assert "include" not in wish
    assert stub.asked[1]["messages"] == stub.asked[0]["messages"]
    panel = page.locator(".panel").nth(1)
    assert "maple-small" in panel.inner_text()
    assert "sorrel-135m" not in panel.inner_text()
    assert "without sorrel-135m; maple-small × 2.5" in page.locator(".chosen").inner_text()
    page.get_by_role("button", name="Clear").click()
    ask(page, "And of France?")
    answered(page, 2)
    assert {"include", "exclude", "weights"}.isdisjoint(stub.asked[2]["manyminds"])
    said = [message["role"] for message in stub.asked[2]["messages"]]
    assert said == ["user", "assistant", "user"], "the conversation goes on from the newer answer alone"


def test_anybody_can_be_included_before_the_first_question(page: Any, stub: Stub) -> None:
    page.goto("/")
    page.locator(".chooser summary").click()
    page.get_by_label("Filter experts").fill("library")
    page.get_by_role("button", name="Include atlas").click()
    assert page.get_by_role("button", name="Include").count() == 1
    assert faults(page) == []
    ask(page)
    answered(page)
    assert stub.asked[0]["manyminds"]["include"] == ["atlas"]
    assert page.locator(".lane").count() == 1


def test_policies_are_compared_side_by_side(page: Any, stub: Stub) -> None:
    page.goto("/")
    page.get_by_label("Your question").fill(QUESTION)
    page.get_by_role("button", name="Compare policies").click()
    columns = page.get_by_role("list", name="Policies side by side").locator("> li")
    page.get_by_role("button", name="Continue with the answer of fast").wait_for()
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    texts = [" ".join(text.split()) for text in columns.all_inner_texts()]
    assert [text.split()[0] for text in texts] == ["auto", "max", "cheap", "fast"]
    assert sorted(asked["model"] for asked in stub.asked) == ["auto", "cheap", "fast", "max"]
    assert "Panel 1 " in texts[2]
    assert "cheapest" in texts[2]
    for text in texts:
        assert "Canberra" in text
        assert "Agreement 80%" in text
    assert faults(page) == []
    page.get_by_role("button", name="Continue with the answer of cheap").click()
    ask(page, "And of France?")
    answered(page)
    assert len(stub.asked[-1]["messages"]) == 3


def test_an_answer_is_graded_once(page: Any, stub: Stub) -> None:
    page.goto("/")
    ask(page)
    answered(page)
    page.get_by_role("button", name="Wrong").click()
    page.get_by_text("Graded wrong").wait_for()
    assert stub.graded == [{"request_id": "req-auto-5", "correct": 0}]
    assert page.get_by_role("button", name="Right").is_disabled()


def test_an_error_is_the_nodes_own_message(page: Any, stub: Stub) -> None:
    stub.scripts["capital"] = Script(EXPERTS, error="Every expert on the panel failed: it rains.")
    page.goto("/")
    ask(page)
    page.get_by_role("alert").filter(has_text="Every expert on the panel failed: it rains.").wait_for()
    assert faults(page) == []
    page.get_by_role("button", name="Ask again").wait_for()


def test_an_answer_is_stopped(page: Any, stub: Stub) -> None:
    stub.scripts["capital"] = Script(EXPERTS, hold=threading.Event())
    page.goto("/")
    ask(page)
    lane(page, "atlas").get_by_text("first words").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped: this answer is not whole.").wait_for()
    assert "stopped" in lane(page, "atlas").inner_text()


def test_a_private_answer_shows_its_bounds_and_nobody(page: Any, stub: Stub) -> None:
    bounds = {"epsilon": 2.0, "delta": 1e-6, "polled": 12}
    hidden = {"panel": None, "attribution": None, "privacy": bounds}
    stub.scripts["capital"] = Script(EXPERTS, watched=False, report=hidden)
    page.goto("/")
    page.get_by_label("Policy").select_option("private")
    ask(page)
    text = answered(page).inner_text()
    assert all(word in text for word in ("Epsilon", "Delta", "12 sources"))
    assert "Agreement" not in text
    assert page.locator(".lane").count() == 0
    assert faults(page) == []


def test_what_an_answer_rests_on_is_quoted(page: Any, stub: Stub) -> None:
    cited = {"source": "library", "document": "act.md", "heading": ["Capital"], "paragraph": 3}
    report = {
        "citations": [cited | {"quote": "The seat of government is Canberra."}],
        "conflicts": [{"answer": "Melbourne", "probability": 0.04, "citations": [cited]}],
    }
    stub.scripts["capital"] = Script(EXPERTS, report=report)
    page.goto("/")
    ask(page)
    text = answered(page).inner_text()
    for words in ("The seat of government is Canberra.", "act.md · Capital · paragraph 3", "Melbourne"):
        assert words in text
    assert faults(page) == []


HOSTILE = (
    "<script>window.hit = 1</script><img src='http://evil.example/x.png' onerror='window.hit = 1'>"
    "<iframe src='http://evil.example/'></iframe><style>* { background: url(http://evil.example/y) }</style>"
    "<a href='javascript:window.hit=1' onclick='window.hit=1'>link</a> "
    "<svg onload='window.hit=1'><a xlink:href='javascript:window.hit=1'>x</a></svg> "
    "<form action='http://evil.example'><button>send</button></form> **bold** "
    "[x](javascript:window.hit=1) ![i](http://evil.example/z.png)"
)


@pytest.mark.parametrize("fake", [None, HOSTILE], ids=["a-careful-node", "a-careless-node"])
def test_no_answer_runs_or_loads_anything(
    page: Any, stub: Stub, complaints: Complaints, fake: str | None
) -> None:
    stub.fake_html = fake
    complaints.allowed = ["Executing inline event handler"] if fake else []  # and that it has been blocked
    calls = tuple(Call(call.expert, call.source, HOSTILE, answer=HOSTILE) for call in EXPERTS)
    stub.scripts["capital"] = Script(calls, answer=HOSTILE)
    page.goto("/")
    ask(page, f"capital {HOSTILE}")
    answer = answered(page)
    page.locator(".prose.whole").wait_for()
    answer.get_by_text("link").first.click()
    assert page.evaluate("window.hit") is None
    assert answer.locator("script, img, iframe, style, svg, form, [onclick], [href^=javascript]").count() == 0
    assert {url for url in complaints.requests if not url.startswith(stub.url)} == set()
    assert " ".join(HOSTILE.split()) in lane(page, "atlas").locator(".draft").text_content()
    assert page.locator(".question h2").text_content() == f"capital {HOSTILE}"


def test_two_hundred_experts(page: Any, stub: Stub) -> None:
    many = tuple(Call(f"expert-{n}", f"source-{n % 20}", f"Draft {n}.", weight=n / 20000) for n in range(200))
    stub.calls = many
    stub.scripts["capital"] = Script(many)
    page.goto("/")
    page.get_by_label("Policy").select_option("max")
    ask(page)
    answered(page)
    assert page.locator(".lane:visible").count() == 12
    assert "expert-199" in page.locator(".lane").first.inner_text(), "those first that counted most"
    page.get_by_role("button", name="Show the other 188 experts").click()
    assert page.locator(".lane:visible").count() == 200
    page.locator(".chooser summary").click()
    page.get_by_text("And 160 more experts").wait_for()
    assert faults(page) == []


def test_a_long_draft_is_clipped_until_one_wants_all(page: Any, stub: Stub) -> None:
    stub.scripts["capital"] = Script((Call("bard", "own", "word " * 400),))
    page.goto("/")
    ask(page)
    answered(page)
    draft = page.locator(".draft")
    clipped = draft.bounding_box()["height"]
    page.get_by_role("button", name="Show all that bard wrote").click()
    assert draft.bounding_box()["height"] > 2 * clipped
    page.get_by_role("button", name="Show less of what bard wrote").click()
    assert draft.bounding_box()["height"] == clipped
