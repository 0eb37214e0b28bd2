"""The wiring: which experts a configuration makes, what they take, and which of them can be asked."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import artefact, catalog
from manyminds.config import load
from manyminds.errors import ArtefactError, ConfigError
from manyminds.node import ARTEFACT, Node, estimate_mb, local_models
from manyminds.types import Card
from tests.e2e.node import borrowed, need
from tests.learn.worlds import hand_made

T = TypeVar("T")
REMOTE = '[[expert]]\nname = "far"\nurl = "http://127.0.0.1:9/v1"\n'
KEYED = '[[expert]]\nname = "keyed"\nurl = "http://127.0.0.1:9/v1"\nkey_env = "NO_SUCH_KEY"\n'


def gguf(path: Path, size: int = 100) -> Path:
    """A file that passes for a model until it is loaded."""
    with path.open("wb") as file:
        file.write(b"GGUF")
        file.truncate(size)
    return path


def opened(folder: Path, text: str, look: Callable[[Node], T], environ: Mapping[str, str] | None = None) -> T:
    """What `look` sees of the node of this manyminds.toml, its home in `folder`; nothing is loaded."""

    async def story() -> T:
        (folder / "manyminds.toml").write_text(text)
        config = load(folder / "manyminds.toml", {"MANYMINDS_HOME": str(folder / "home")}, {})
        async with Node(config, environ or {}) as node:
            return look(node)

    return asyncio.run(story())


def names(node: Node) -> list[str]:
    return [card.name for card in node.cards]


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", "private", "gemma-3-270m"])
def test_a_model_recorded_under_a_taken_name_is_refused_with_its_record(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    catalog.add_own(home, gguf(tmp_path / "f.gguf"), "mine")
    record = catalog.record_of(home, name)
    catalog.record_of(home, "mine").rename(record)
    with pytest.raises(ConfigError, match=f"{record} .*remove"):
        opened(tmp_path, "", names)


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    catalog.add_own(tmp_path / "home", gguf(tmp_path / "f.gguf"), "far")
    with pytest.raises(ConfigError, match="two experts are named far"):
        opened(tmp_path, REMOTE, names)


# --- cards -----------------------------------------------------------------------------------------


def test_the_card_of_a_local_expert_says_what_its_entry_says(tmp_path: Path) -> None:
    gguf(tmp_path / "house.gguf")
    entry = (
        '[local]\ntier = "none"\nprice_cpu_usd_per_hour = 0.3\n'
        '[[expert]]\nname = "house"\nkind = "local"\npath = "house.gguf"\nsource = "alice"\n'
        'accuracy = 0.8\nskills = ["law"]\ncontext_tokens = 1234\noffers = ["tools"]\n'
    )
    (card,) = opened(tmp_path, entry, lambda node: node.cards)
    assert card == Card(
        name="house",
        kind="local",
        source="alice",
        model="house",
        description="house",
        skills=("law",),
        accuracy=0.8,
        price_cpu_usd_per_hour=0.3,
        context_tokens=1234,
        offers=frozenset({"tools", "logprobs", "json_schema", "score", "samples", "grammar"}),
    )


def test_a_context_that_no_entry_states_is_the_default_of_its_kind(tmp_path: Path) -> None:
    gguf(tmp_path / "house.gguf")
    local = '[local]\ntier = "none"\ncontext_tokens = 777\n[[expert]]\nname = "house"\nkind = "local"\n'
    text = local + 'path = "house.gguf"\n' + REMOTE
    found = opened(tmp_path, text, lambda node: {card.name: card.context_tokens for card in node.cards})
    assert found == {"far": 8192, "house": 777}


# --- keys ------------------------------------------------------------------------------------------


def test_an_expert_without_its_key_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = '[local]\ntier = "none"\n' + REMOTE + KEYED
    assert opened(tmp_path, text, names) == ["far"]
    assert "keyed takes its key from NO_SUCH_KEY" in caplog.text
    assert opened(tmp_path, text, names, {"NO_SUCH_KEY": "k"}) == ["far", "keyed"]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_without_any_other_expert_a_missing_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keyed takes its key from NO_SUCH_KEY"):
        opened(tmp_path, '[local]\ntier = "none"\n' + KEYED, names, {"NO_SUCH_KEY": " "})


# --- what was learnt -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learnt_of", "level", "said"),
    [
        ({"far": 0.8, "gone": 0.7}, logging.INFO, "learnt from 'toy', knows 1 of 1 experts."),
        ({"far:cot": 0.8, "far:sc3": 0.7}, logging.INFO, "learnt from 'toy', knows 1 of 1 experts."),
        ({"b": 0.8, "gone": 0.7}, logging.WARNING, "learnt from 'toy', knows 0 of 1 experts and so changes"),
    ],
)
def test_a_node_says_what_was_learnt_and_of_how_many_of_its_experts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, learnt_of: dict[str, float], level: int, said: str
) -> None:
    path = tmp_path / "home" / ARTEFACT
    artefact.save(hand_made(learnt_of, about={"set": "toy"}), path)
    with caplog.at_level(logging.INFO, "manyminds"):
        opened(tmp_path, '[local]\ntier = "none"\n' + REMOTE, names)
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith(f"{path}: {said}")


def test_a_damaged_artefact_stops_a_node_that_uses_it_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ARTEFACT).write_text("not a zip")
    with pytest.raises(ArtefactError, match="`manyminds train DIR`, or remove it"):
        opened(tmp_path, REMOTE, names)

    async def without() -> list[str]:
        config = load(tmp_path / "manyminds.toml", {"MANYMINDS_HOME": str(tmp_path / "home")}, {})
        async with Node(config, {}, learnt=False) as node:
            return names(node)

    assert asyncio.run(without()) == ["far"]


# --- memory ----------------------------------------------------------------------------------------


def test_the_estimate_bounds_what_was_measured_and_is_not_wild() -> None:
    for model in (m for m in catalog.load().values() if m.kind == "gguf"):
        estimated = estimate_mb(model.files[0].bytes, 4096)
        assert model.memory_mb <= estimated <= 2 * model.memory_mb, model.name
        assert estimate_mb(model.files[0].bytes, 4096, model.memory_mb) == model.memory_mb


@given(st.integers(0, 10**12), st.integers(1, 10**7), st.integers(1, 10**7), st.sampled_from([0, 248.3]))
def test_a_longer_context_never_takes_less(size: int, one: int, other: int, measured: float) -> None:
    less, more = sorted((one, other))
    assert estimate_mb(size, less, measured) <= estimate_mb(size, more, measured)
    assert estimate_mb(size, 100_000, measured) >= measured + 25 * 95


def test_own_files_and_local_experts_are_offered_where_each_fits_into_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog.add_own(tmp_path / "home", gguf(tmp_path / "own.gguf", 300_000_000), "own")
    gguf(tmp_path / "small.gguf", 100_000_000)
    gguf(tmp_path / "huge.gguf", 700_000_000)
    text = "[local]\nmax_memory_gb = 0.8\n" + "".join(
        f'[[expert]]\nname = "{name}"\nkind = "local"\npath = "{name}.gguf"\n' for name in ("huge", "small")
    )
    assert opened(tmp_path, text, names) == ["own", "small"]  # in turns: they take 841 MB
    (said,) = [r.getMessage() for r in caplog.records if "huge" in r.getMessage()]
    assert "4096 tokens" in said
    assert "local.max_memory_gb = 0.8" in said
    assert opened(tmp_path, text.replace("0.8", "1.2"), names) == ["huge", "own", "small"]
    assert opened(tmp_path, text.replace("\n", "\ncontext_tokens = 20000\n", 1), names) == ["small"]


def test_a_catalogued_model_has_the_context_it_was_trained_with_at_most(tmp_path: Path) -> None:
    need()
    config = load(None, {"MANYMINDS_HOME": str(borrowed(tmp_path))}, {"local.context_tokens": 20_000})
    found = {m.card.name: m for m in local_models(config)}
    assert found["smollm2-135m"].card.context_tokens == 8192
    assert found["qwen2.5-coder-0.5b"].card.context_tokens == 20_000
    assert found["smollm2-135m"].memory_mb > 248 + 0.023 * 4096


# --- loading ---------------------------------------------------------------------------------------


def test_a_model_that_fails_to_load_is_said_and_is_not_running(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gguf(tmp_path / "bad.gguf")
    bad = '[local]\ntier = "none"\n[[expert]]\nname = "bad"\nkind = "local"\npath = "bad.gguf"\n'

    async def story(text: str) -> list[tuple[list[str], bool]]:
        (tmp_path / "manyminds.toml").write_text(text)
        config = load(tmp_path / "manyminds.toml", {"MANYMINDS_HOME": str(tmp_path / "home")}, {})
        async with Node(config, {}) as node:
            before = (node.running, node.ready)
            await node.load()
            return [before, (node.running, node.ready)]

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(story(bad)) == [(["bad"], False), ([], False)]
    assert "bad" in caplog.text
    assert asyncio.run(story(bad + REMOTE)) == [(["bad", "far"], False), (["far"], True)]
    none = '[local]\ntier = "none"\n'
    assert asyncio.run(story(none + REMOTE)) == [(["far"], False), (["far"], True)]
    assert asyncio.run(story(none)) == [([], False), ([], True)]


def test_a_model_that_died_can_be_asked_again(tmp_path: Path) -> None:
    need()

    async def story() -> None:
        config = load(None, {"MANYMINDS_HOME": str(borrowed(tmp_path))}, {"local.max_memory_gb": 0.3})
        async with Node(config, {}) as node:
            await node.load()
            (model,) = node.locals
            assert model.pid is not None
            os.kill(model.pid, signal.SIGKILL)
            while any(m.pid for m in node.locals):  # noqa: ASYNC110 - another process sets no Event
                await asyncio.sleep(0)
            assert (node.running, node.ready) == (["smollm2-135m"], True)

    asyncio.run(story())
