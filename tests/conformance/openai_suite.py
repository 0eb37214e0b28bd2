"""OpenAI's own generated tests of their Python client, against a node whose experts are played.

Vectors are the node's own encoder's, which must have been pulled.

They are not in the wheel: `pip download openai==3.54.0 --no-deps --no-binary :all:` brings them, and
`python -m tests.conformance.openai_suite --sdist openai-3.54.0.tar.gz` runs them; it fetches nothing. They
need pytest, pytest-asyncio, rich and openai[aiohttp], in this Python or the one that `--python` names.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from manyminds import catalog
from tests.conformance.upstream import running, says
from tests.e2e.node import served
from tests.pulled import ENCODER, HOME

__all__ = ["main"]

FILES = ("chat/test_completions", "test_completions", "test_embeddings", "test_models", "test_responses")

CHOSEN = "create or (test_models and (retrieve or list))"

# Names of tests that cannot pass.
LEFT_OUT = (
    # They name what a node does not keep: `previous_response_id`, `conversation`, `prompt`, `background`.
    # Of the first two OpenAI itself takes only one.
    "test_responses and all_params",
    # Their client asks for base64 where it is told no format, and in its strict mode takes numbers only.
    "test_embeddings and (strict or aiohttp) and not all_params",
)

MODELS = ("gpt-6-astra", "gpt-3.5-turbo-instruct")
EXPERT = """
[[expert]]
name = "{name}"
url = "{url}"
model = "a"
offers = ["tools", "json_schema", "image", "logprobs", "n"]
"""
ALIASES = f"""
[aliases]
"text-embedding-3-small" = "{ENCODER}"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite. The exit status is pytest's."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.openai_suite", description=__doc__)
    parser.add_argument("--sdist", type=Path, required=True, help="openai-VERSION.tar.gz")
    parser.add_argument("--python", default=sys.executable, help="the Python that has what the tests need")
    parser.add_argument("--all", action="store_true", help="also those that cannot pass")
    chosen = parser.parse_args(arguments)
    if catalog.missing(HOME, catalog.find(ENCODER)):
        parser.error(f"{ENCODER} has not been pulled: run `manyminds pull {ENCODER}`")
    with tempfile.TemporaryDirectory() as scratch, running() as upstream:
        folder = Path(scratch)
        with tarfile.open(chosen.sdist) as archive:
            archive.extractall(folder, filter="data")
        (suite,) = (path for path in folder.iterdir() if (path / "tests/api_resources").is_dir())
        config = "".join(EXPERT.format(name=name, url=upstream.url) for name in MODELS)
        (folder / "manyminds.toml").write_text(config + ALIASES)
        upstream.play(says("Cats", " purr."))
        with served(folder, "--tier", "none") as node:
            return _pytest(chosen.python, suite, node.url, () if chosen.all else LEFT_OUT)


def _pytest(python: str, suite: Path, url: str, left_out: Sequence[str]) -> int:
    names = f"({CHOSEN})" + "".join(f" and not ({names})" for names in left_out)
    paths = [f"tests/api_resources/{name}.py" for name in FILES]
    command = [python, "-m", "pytest", "-q", "-o", "addopts=--tb=short", "-k", names, *paths]
    environ = os.environ | {"TEST_API_BASE_URL": url}
    return subprocess.run(command, cwd=suite, env=environ).returncode


if __name__ == "__main__":
    sys.exit(main())
