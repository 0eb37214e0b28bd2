"""Cases 7 to 10: tools and structured answers."""

import itertools
import json
from typing import Any

import openai
import pydantic
import pytest

from tests.conformance.edge import Mode, data, post
from tests.conformance.upstream import Play, Upstream, calls, says, speaks
from tests.e2e.node import Served
from tests.experts.upstream import plain

FUNCTIONS = (("weather", '{"city": "Zürich", "days": 3}'), ("time", '{"zone": "Europe/\\u5317"}'))
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name, _ in FUNCTIONS
]


def calling(cut: int = 5, interleaved: bool = False) -> Play:
    """Both functions, their arguments in pieces of so many characters, one after the other or in turns."""
    events: list[list[dict[str, Any]]] = []
    for i, call in enumerate(calls("{model}", *FUNCTIONS)):
        arguments = call["function"]["arguments"]
        function = call["function"] | {"arguments": ""}
        pieces = [arguments[at : at + cut] for at in range(0, len(arguments), cut)]
        events.append([{"index": i} | call | {"function": function}])
        events[-1] += [{"index": i, "function": {"arguments": piece}} for piece in pieces]
    turns = itertools.chain(*itertools.zip_longest(*events)) if interleaved else itertools.chain(*events)
    queue = [event for event in turns if event]
    deltas: list[dict[str, Any]] = [{"tool_calls": [event]} for event in queue]
    return speaks(deltas, {"tool_calls": calls("{model}", *FUNCTIONS)}, finish="tool_calls")


def test_07_the_first_piece_of_a_call_names_it(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(calling())
    *events, done = data(post(node, live.body(stream=True, tools=TOOLS)).body)
    assert done == "[DONE]"
    pieces = [piece for e in events for c in e["choices"] for piece in c["delta"].get("tool_calls") or ()]
    begun: set[int] = set()
    for piece in pieces:
        if piece["index"] not in begun:
            begun.add(piece["index"])
            assert (piece["type"], piece["function"]["name"]) == ("function", FUNCTIONS[piece["index"]][0])
            assert piece["id"]
        else:
            assert not piece.get("id")
            assert not piece["function"].get("name")
    assert begun == {0, 1}
    assert [e["choices"][0]["finish_reason"] for e in events if e["choices"]][-1] == "tool_calls"


@pytest.mark.parametrize("interleaved", [False, True], ids=["in_turn", "interleaved"])
@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_07_arguments_may_be_split_anywhere(
    client: openai.OpenAI, upstream: Upstream, live: Mode, cut: int, interleaved: bool
) -> None:
    upstream.play(calling(cut, interleaved))
    with client.chat.completions.stream(**live.asking(tools=TOOLS)) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        message = stream.get_final_completion().choices[0].message
    if not interleaved:  # the client takes a call for done when another goes on
        assert [(event.name, event.arguments) for event in done] == list(FUNCTIONS)
    found = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    assert found == list(FUNCTIONS)


def test_08_parallel_calls_are_all_of_one_expert(
    client: openai.OpenAI, upstream: Upstream, live: Mode
) -> None:
    upstream.play(calling())
    asking = live.asking(tools=TOOLS, parallel_tool_calls=True)
    choice = client.chat.completions.create(**asking).choices[0]
    assert choice.finish_reason == "tool_calls"
    made = choice.message.tool_calls or []
    assert [call.id for call in made] in [[call["id"] for call in calls(m, *FUNCTIONS)] for m in "abc"]
    assert [(call.function.name, call.function.arguments) for call in made] == list(FUNCTIONS)
    with client.chat.completions.stream(**asking) as stream:
        list(stream)
        streamed = stream.get_final_completion().choices[0].message.tool_calls or []
    assert len({call.id.rpartition("_")[0] for call in streamed}) == 1
    assert {str(asked.body["tools"]) for asked in upstream.asked} == {str(TOOLS)}
    assert all(asked.body["parallel_tool_calls"] is True for asked in upstream.asked)


def test_08_calls_without_text_have_null_content(
    client: openai.OpenAI, upstream: Upstream, mode: Mode
) -> None:
    """Also where a stream opened with an empty text."""
    upstream.play(calling())
    message = client.chat.completions.create(**mode.asking(tools=TOOLS)).choices[0].message
    assert message.content is None


def test_09_a_turn_of_tool_results_arrives_whole(
    client: openai.OpenAI, upstream: Upstream, live: Mode
) -> None:
    upstream.play(says("It is warm."))
    turns = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls("a", *FUNCTIONS)},
        {"role": "tool", "tool_call_id": "call_a_0", "content": '{"degrees": 21.50}'},
        {"role": "tool", "tool_call_id": "call_a_1", "content": [{"type": "text", "text": "noon"}]},
    ]
    asking = live.asking() | {"messages": turns, "tools": TOOLS}
    assert client.chat.completions.create(**asking).choices[0].message.content == "It is warm."
    chunks = list(client.chat.completions.create(**asking, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "It is warm."
    assert all(asked.body["messages"] == turns for asked in upstream.asked)


def test_09_without_tools_their_results_need_an_expert_for_them(node: Served, upstream: Upstream) -> None:
    upstream.play(says("never"))
    turns = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "tool_calls": calls("a", FUNCTIONS[0])},
        {"role": "tool", "tool_call_id": "call_a_0", "content": "warm"},
    ]
    got = post(node, {"model": "plain", "messages": turns})
    assert (got.status, got.error["code"], got.error["param"]) == (422, "no_expert", "tools")
    assert upstream.asked == []


class Cat(pydantic.BaseModel):
    name: str
    lives: int


@pytest.mark.parametrize("strategy", [None, "vote", "select", "fuse", "race"])
def test_10_an_answer_to_a_schema_validates(
    client: openai.OpenAI, upstream: Upstream, mode: Mode, strategy: str | None
) -> None:
    """Each expert's draft keeps the schema, and whatever is made of them has to."""
    others = {m: says(f'{{"name": "{m}", ', '"lives": 7}') for m in "bc"}
    upstream.play(says('{"name": "Tom", ', '"lives": 9}'), **others)
    asking = mode.asking(extra_body={"manyminds": {"strategy": strategy}} if strategy else {})
    message = client.chat.completions.parse(**asking, response_format=Cat).choices[0].message
    assert message.parsed is not None
    assert message.parsed.lives in (7, 9)
    with client.chat.completions.stream(**asking, response_format=Cat) as stream:
        list(stream)
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert parsed is not None
    kinds = {asked.body["response_format"]["type"] for asked in upstream.asked}
    assert kinds == {"json_schema"}


def test_10_equal_objects_agree(client: openai.OpenAI, upstream: Upstream) -> None:
    """Two that differ in form alone outvote a likelier third."""
    upstream.play(
        says('{"name": "Tom", "lives": 9}'),
        b=says('{"name": "Kit", "lives": 7}'),
        c=says('{ "lives": 7.0,\n "name": "Kit" }'),
    )
    extra = {"manyminds": {"weights": {"b": 2.0}}}
    completion = client.chat.completions.parse(
        model="auto",
        messages=[{"role": "user", "content": "Name a cat."}],
        response_format=Cat,
        extra_body=extra,
    )
    assert completion.choices[0].message.parsed == Cat(name="Kit", lives=7)
    assert (completion.model_extra or {})["manyminds"]["strategy"] == "vote"


@pytest.mark.parametrize("said", ['{"name": "Tom"', "I would rather not."])
def test_10_one_that_is_no_json_is_outvoted(client: openai.OpenAI, upstream: Upstream, said: str) -> None:
    upstream.play(says('{"name": "Kit", "lives": 7}'), a=says(said))
    parsed = client.chat.completions.parse(
        model="auto", messages=[{"role": "user", "content": "Name a cat."}], response_format=Cat
    )
    assert parsed.choices[0].message.parsed == Cat(name="Kit", lives=7)


def test_10_the_schema_is_sent_as_it_came(node: Served, upstream: Upstream, mode: Mode) -> None:
    schema = {"name": "n", "strict": True, "schema": {"type": "object", "ünknown": [1.0, None]}}
    upstream.play(lambda body: [plain(b"{}", "500 Oops")])
    post(node, mode.body(response_format={"type": "json_schema", "json_schema": schema}))
    assert {json.dumps(asked.body["response_format"]["json_schema"]) for asked in upstream.asked} == {
        json.dumps(schema)
    }
