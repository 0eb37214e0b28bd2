"""The official clients, unchanged, against the real process, in pass-through and fan-out mode.

What `tests/conformance` leaves open: there the synchronous clients ask, without retries, whoever has no key.
Here ask the asynchronous ones, with all that is asked there; and all of them meet every kind of error, and
come back when they are told to. The command `llm` is in `tests/conformance/test_llm.py`.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import anthropic
import anyio
import openai
import pydantic
import pytest

from tests.conformance.edge import MODES, PANEL, Mode, configured, post
from tests.conformance.test_errors import failing
from tests.conformance.test_tools import FUNCTIONS, TOOLS, calling
from tests.conformance.upstream import Part, Play, Upstream, running, says
from tests.e2e.node import Served, served
from tests.e2e.test_keys import made
from tests.pulled import needs_encoder

T = TypeVar("T")
PIECES = ("Cats", " purr", " \N{CAT FACE}.")
WHOLE = "".join(PIECES)
CAT = '{"name": "Tom", "lives": 9}'
SCHEMES: dict[str, Any] = {"name": "weather", "input_schema": {"type": "object"}}


class Cat(pydantic.BaseModel):
    name: str
    lives: int


@pytest.fixture(scope="module")
def network() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture
def upstream(network: Upstream) -> Upstream:
    network.play(says(*PIECES))
    return network


@pytest.fixture(scope="module")
def node(network: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    configured(folder, network)
    with served(folder, "--tier", "none") as found:
        yield found


@pytest.fixture
def healed(network: Upstream, node: Served) -> Iterator[Served]:
    """The node; in the end each expert answers once, so that none is spared in the next test."""
    yield node
    network.play(says("All is well."))
    for model in (*PANEL, "plain"):
        post(node, {"model": model, "messages": [{"role": "user", "content": "How are you?"}]})


@pytest.fixture(params=["pass_through", "fan_out"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return MODES[request.param]


# --- openai, asynchronous ----------------------------------------------------------------------------------


def with_openai(node: Served, act: Callable[[openai.AsyncOpenAI], Awaitable[T]], **more: Any) -> T:
    async def asking() -> T:
        settings: dict[str, Any] = {
            "max_retries": 0,
            "timeout": 20,
            "_strict_response_validation": True,
        } | more
        async with openai.AsyncOpenAI(base_url=node.url, api_key="any", **settings) as client:
            return await act(client)

    return asyncio.run(asking())


def test_openai_answers_plain_and_in_a_stream(node: Served, upstream: Upstream, mode: Mode) -> None:
    async def act(client: openai.AsyncOpenAI) -> None:
        whole = await client.chat.completions.create(**mode.asking())
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (WHOLE, "stop")
        stream = await client.chat.completions.create(
            **mode.asking(), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == WHOLE
        assert chunks[-1].usage == whole.usage
        async with client.chat.completions.stream(**mode.asking()) as helper:
            deltas = [event.delta async for event in helper if event.type == "content.delta"]
            final = await helper.get_final_completion()
        assert ("".join(deltas), final.choices[0].message.content) == (WHOLE, WHOLE)

    with_openai(node, act)


def test_openai_calls_tools_and_hears_their_results(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(lambda body: (says("Warm.") if body["messages"][-1]["role"] == "tool" else calling())(body))

    async def act(client: openai.AsyncOpenAI) -> None:
        asking = mode.asking(tools=TOOLS)
        message = (await client.chat.completions.create(**asking)).choices[0].message
        async with client.chat.completions.stream(**asking) as stream:
            done = [e async for e in stream if e.type == "tool_calls.function.arguments.done"]
        assert [(event.name, event.arguments) for event in done] == list(FUNCTIONS)
        made = message.tool_calls or []
        assert [(c.function.name, c.function.arguments) for c in made if c.type == "function"] == list(
            FUNCTIONS
        )
        results = [{"role": "tool", "tool_call_id": call.id, "content": "warm"} for call in made]
        turns = [*asking["messages"], message.model_dump(exclude_none=True), *results]
        again = await client.chat.completions.create(**asking | {"messages": turns})
        assert again.choices[0].message.content == "Warm."
        assert [m["role"] for m in upstream.asked[-1].body["messages"]] == [
            "user",
            "assistant",
            "tool",
            "tool",
        ]

    with_openai(node, act)


def test_openai_parses_structured_answers(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says(*CAT.partition(",")))

    async def act(client: openai.AsyncOpenAI) -> None:
        parsed = await client.chat.completions.parse(**mode.asking(), response_format=Cat)
        async with client.chat.completions.stream(**mode.asking(), response_format=Cat) as stream:
            final = await stream.get_final_completion()
        asking: dict[str, Any] = {"model": mode.model, "input": "Name a cat.", "extra_body": dict(mode.more)}
        response = await client.responses.parse(**asking, text_format=Cat)
        found = [parsed.choices[0].message.parsed, final.choices[0].message.parsed, response.output_parsed]
        assert found == [Cat(name="Tom", lives=9)] * 3

    with_openai(node, act)
    assert {asked.body["response_format"]["type"] for asked in upstream.asked} == {"json_schema"}


@needs_encoder
def test_openai_embeds_in_base64_and_in_numbers(node: Served) -> None:
    async def act(client: openai.AsyncOpenAI) -> None:
        packed = await client.embeddings.create(model="auto", input=["Why?", "é"])  # asks for base64
        plain = await client.embeddings.create(model="auto", input=["Why?", "é"], encoding_format="float")
        for one, other in zip(packed.data, plain.data, strict=True):
            assert one.embedding == pytest.approx(other.embedding, abs=1e-7)

    with_openai(node, act, _strict_response_validation=False)  # which takes no base64


# --- anthropic, asynchronous -------------------------------------------------------------------------------


def with_anthropic(node: Served, act: Callable[[anthropic.AsyncAnthropic], Awaitable[T]]) -> T:
    async def asking() -> T:
        url = node.url.removesuffix("/v1")
        settings: dict[str, Any] = {"max_retries": 0, "timeout": 20, "_strict_response_validation": True}
        async with anthropic.AsyncAnthropic(base_url=url, api_key="any", **settings) as client:
            return await act(client)

    return asyncio.run(asking())


def saying(mode: Mode, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Why do cats purr?"}]
    return {"model": mode.model, "messages": turns, "max_tokens": 64, "extra_body": dict(mode.more)} | more


def test_anthropic_answers_plain_and_in_a_stream(node: Served, upstream: Upstream, mode: Mode) -> None:
    async def act(client: anthropic.AsyncAnthropic) -> None:
        whole = await client.messages.create(**saying(mode))
        assert [block.to_dict()["text"] for block in whole.content] == [WHOLE]
        raw = await client.messages.create(**saying(mode), stream=True)
        assert [event.type async for event in raw][-1] == "message_stop"
        async with client.messages.stream(**saying(mode)) as stream:
            assert "".join([text async for text in stream.text_stream]) == WHOLE
            assert (await stream.get_final_message()).usage.output_tokens == whole.usage.output_tokens == 7
        counted = await client.messages.count_tokens(model=mode.model, messages=saying(mode)["messages"])
        assert counted.input_tokens == 9
        lenient = client.with_options(_extra_kwargs={"_strict_response_validation": False})
        assert mode.model in [model.id async for model in lenient.models.list()]  # it is OpenAI's list

    with_anthropic(node, act)


def test_anthropic_calls_tools_and_hears_their_results(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(lambda body: (says("Warm.") if body["messages"][-1]["role"] == "tool" else calling())(body))
    tools = [SCHEMES | {"name": name} for name, _ in FUNCTIONS]
    expected = [(name, json.loads(arguments)) for name, arguments in FUNCTIONS]

    async def act(client: anthropic.AsyncAnthropic) -> None:
        message = await client.messages.create(**saying(mode, tools=tools))
        assert [(b.name, b.input) for b in message.content if b.type == "tool_use"] == expected
        async with client.messages.stream(**saying(mode, tools=tools)) as stream:
            final = await stream.get_final_message()
        assert [(b.name, b.input) for b in final.content if b.type == "tool_use"] == expected
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "warm"}
            for block in message.content
            if block.type == "tool_use"
        ]
        turns = [*saying(mode)["messages"], {"role": "assistant", "content": message.content}]
        turns += [{"role": "user", "content": results}]
        again = await client.messages.create(**saying(mode, tools=tools, messages=turns))
        assert [block.to_dict()["text"] for block in again.content] == ["Warm."]

    with_anthropic(node, act)


def test_anthropic_parses_structured_answers(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says(*CAT.partition(",")))

    async def act(client: anthropic.AsyncAnthropic) -> None:
        parsed = await client.messages.parse(**saying(mode), output_format=Cat)
        assert parsed.parsed_output == Cat(name="Tom", lives=9)

    with_anthropic(node, act)
    assert {asked.body["response_format"]["type"] for asked in upstream.asked} == {"json_schema"}


# --- errors and retries, all clients -----------------------------------------------------------------------

Ask = Callable[..., str]
"""One question by one client: URL, model and more of the request; `key` and `retries` are the client's."""


def by_openai(url: str, model: str, key: str = "any", retries: int = 0, **more: Any) -> str:
    turns: Any = [{"role": "user", "content": "Why do cats purr?"}]
    with openai.OpenAI(base_url=url, api_key=key, max_retries=retries, timeout=20) as client:
        return (
            client.chat.completions.create(model=model, messages=turns, **more).choices[0].message.content
            or ""
        )


def by_async_openai(url: str, model: str, key: str = "any", retries: int = 0, **more: Any) -> str:
    async def asking() -> str:
        turns: Any = [{"role": "user", "content": "Why do cats purr?"}]
        async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=retries, timeout=20) as client:
            reply = await client.chat.completions.create(model=model, messages=turns, **more)
            return reply.choices[0].message.content or ""

    return asyncio.run(asking())


def by_anthropic(url: str, model: str, key: str = "any", retries: int = 0, **more: Any) -> str:
    root = url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=root, api_key=key, max_retries=retries, timeout=20) as client:
        reply = client.messages.create(**saying(Mode("", model, [])) | more)
        return "".join(block.to_dict()["text"] for block in reply.content)


def by_async_anthropic(url: str, model: str, key: str = "any", retries: int = 0, **more: Any) -> str:
    async def asking() -> str:
        root = url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(
            base_url=root, api_key=key, max_retries=retries, timeout=20
        ) as client:
            reply = await client.messages.create(**saying(Mode("", model, [])) | more)
            return "".join(block.to_dict()["text"] for block in reply.content)

    return asyncio.run(asking())


CLIENTS: dict[str, tuple[Ask, Any]] = {
    "openai": (by_openai, openai),
    "async openai": (by_async_openai, openai),
    "anthropic": (by_anthropic, anthropic),
    "async anthropic": (by_async_anthropic, anthropic),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> tuple[Ask, Any]:
    """How it asks, and the package with its errors."""
    return CLIENTS[request.param]


def test_what_is_wrong_is_an_error_of_the_client(
    node: Served, upstream: Upstream, client: tuple[Ask, Any], mode: Mode
) -> None:
    ask, package = client
    with pytest.raises(package.BadRequestError, match="temperature") as wrong:
        ask(node.url, mode.model, extra_body=dict(mode.more) | {"temperature": -1}, retries=2)
    with pytest.raises(package.NotFoundError, match="nobody") as unknown:
        ask(node.url, "nobody", retries=2)
    limits = {"manyminds": {"include": ["nobody"]}}
    with pytest.raises(package.UnprocessableEntityError) as unfit:
        ask(node.url, "auto", extra_body=limits, retries=2)
    assert all(caught.value.request_id for caught in (wrong, unknown, unfit))
    assert upstream.asked == []


def test_trouble_upstream_is_an_error_of_the_client(
    healed: Served, upstream: Upstream, client: tuple[Ask, Any], mode: Mode
) -> None:
    ask, package = client
    upstream.play(failing("500 Oops", "out of luck"))
    overloaded = getattr(package, "OverloadedError", package.InternalServerError)
    with pytest.raises(overloaded, match="out of luck"):
        ask(healed.url, mode.model, extra_body=dict(mode.more))
    upstream.play(failing("413 No", "too long"))
    limits = {"manyminds": {"exclude": ["down"]}} if mode.name == "fan_out" else {}
    with pytest.raises(package.BadRequestError, match="too long"):
        ask(healed.url, mode.model, extra_body=limits)


@pytest.fixture(scope="module")
def locked(
    network: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, dict[str, str]]]:
    """A node that asks everybody for a key, and such keys: one for `a` alone, the others for one request."""
    folder = tmp_path_factory.mktemp("locked")
    configured(folder, network)
    keys = {name: made(folder, "--requests-per-min", "1")[1] for name in CLIENTS}
    keys["narrow"] = made(folder, "--model", "a")[1]
    with served(folder, "--tier", "none", env={"MANYMINDS_SERVER_KEYS": "required"}) as found:
        yield found, keys


@pytest.mark.parametrize("name", CLIENTS)
def test_a_key_that_does_not_do_is_an_error_of_the_client(
    locked: tuple[Served, dict[str, str]], upstream: Upstream, name: str
) -> None:
    (node, keys), (ask, package) = locked, CLIENTS[name]
    with pytest.raises(package.AuthenticationError):
        ask(node.url, "a", key="unknown", retries=2)
    with pytest.raises(package.PermissionDeniedError, match="auto"):
        ask(node.url, "auto", key=keys["narrow"], retries=2)
    assert ask(node.url, "a", key=keys[name]) == WHOLE
    with pytest.raises(package.RateLimitError) as caught:
        ask(node.url, "a", key=keys[name])
    assert int(caught.value.response.headers["retry-after"]) in range(1, 61)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the clients have waited before they asked again; it takes no time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(time, "sleep", found.append)
    monkeypatch.setattr(anyio, "sleep", sleep)
    return found


def busy_once(*pieces: str) -> Play:
    """Each model says first that it is busy, and then these pieces."""
    asked: set[str] = set()
    busy, ready = failing("429 Too Many Requests", "slow down", "retry-after: 7\r\n"), says(*pieces)

    def play(body: dict[str, Any]) -> Sequence[Part]:
        known = body["model"] in asked
        asked.add(body["model"])
        return ready(body) if known else busy(body)

    return play


def test_a_client_comes_back_when_it_is_told(
    healed: Served, upstream: Upstream, client: tuple[Ask, Any], mode: Mode, waits: list[float]
) -> None:
    ask, _ = client
    upstream.play(busy_once(*PIECES))
    limits = {"manyminds": {"exclude": ["down"]}} if mode.name == "fan_out" else {}
    assert ask(healed.url, mode.model, extra_body=limits, retries=2) == WHOLE
    assert waits == [7.0]


def test_a_client_does_not_come_back_where_all_has_been_tried(
    healed: Served, upstream: Upstream, client: tuple[Ask, Any], waits: list[float]
) -> None:
    ask, package = client
    upstream.play(failing("500 Oops", "out of luck"))
    with pytest.raises(package.InternalServerError, match="out of luck"):
        ask(healed.url, "auto", extra_body={}, retries=2)
    assert waits == []
