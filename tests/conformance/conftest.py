"""One node as a real process for each module, before experts whose server is in `upstream`."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from tests.conformance.edge import MODES, Mode, configured, post
from tests.conformance.upstream import Upstream, running, says
from tests.e2e.node import Served, served


@pytest.fixture(scope="module")
def network() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture
def upstream(network: Upstream, node: Served) -> Upstream:
    """What the experts play. Nobody has been asked yet; no request of a test before is on its way."""
    assert node.get("/health/live")
    network.settle()
    network.play(lambda body: [])
    return network


@pytest.fixture
def healed(network: Upstream, node: Served) -> Iterator[None]:
    """In the end each expert answers once, so that none that failed here is spared in the next test."""
    yield
    network.play(says("All is well."))
    for model in ("a", "b", "c", "plain"):
        post(node, {"model": model, "messages": [{"role": "user", "content": "How are you?"}]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="module")
def node(network: Upstream, folder: Path) -> Iterator[Served]:
    configured(folder, network)
    with served(folder, "--tier", "none") as running:
        yield running
    assert "Traceback" not in (folder / "serve.log").read_text()


@pytest.fixture
def client(node: Served) -> Iterator[openai.OpenAI]:
    """Refuses whatever is not of OpenAI's types."""
    with openai.OpenAI(
        base_url=node.url, api_key="any", max_retries=0, timeout=20, _strict_response_validation=True
    ) as made:
        yield made


@pytest.fixture
def lenient(node: Served) -> Iterator[openai.OpenAI]:
    """For what OpenAI's own types do not allow: base64, and streamed text completions before their finish."""
    with openai.OpenAI(base_url=node.url, api_key="any", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
def claude(node: Served) -> Iterator[anthropic.Anthropic]:
    """Refuses whatever is not of Anthropic's types."""
    with anthropic.Anthropic(
        base_url=node.url.removesuffix("/v1"),
        api_key="any",
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as made:
        yield made


@pytest.fixture(params=["pass_through", "fan_out"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """One expert by its name; a policy that hears three and lets the best speak."""
    return MODES[request.param]


@pytest.fixture(params=["pass_through", "fan_out", "race"])
def live(request: pytest.FixtureRequest) -> Mode:
    """Those of `mode`, and a race, whose winner speaks as it comes."""
    return MODES[request.param]
