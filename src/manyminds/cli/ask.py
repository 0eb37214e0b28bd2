"""`manyminds ask`: one question to the network in this process, the answer streamed, then the panel."""

import asyncio
import json
import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.look import written
from manyminds.cli.pull import bring_missing
from manyminds.cli.settings import as_json, print_json, read
from manyminds.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from manyminds.config import Config
    from manyminds.types import Query, Report

__all__ = ["ask"]


@click.command()
@click.argument("words", nargs=-1, metavar="QUESTION...")
@click.option("--model", "-m", default="auto", show_default=True, help="A policy, or an expert by name.")
@click.option("--strategy", help="vote, select, fuse, race or pass, instead of the policy's choice.")
@click.option("--include", multiple=True, help="Ask only this expert or source; may be repeated.")
@click.option("--exclude", multiple=True, help="Never ask this expert or source; may be repeated.")
@click.option("--require", multiple=True, help="No answer without this expert or source; may be repeated.")
@click.option("--purpose", help="What the answer is for: owners may allow some purposes only.")
@click.option("--grounded", is_flag=True, help="Only an answer that documents support, else none.")
@click.option("--panel", type=int, help="Experts on the panel at most.")
@click.option("--budget-usd", type=float, help="Most that the answer may be expected to cost.")
@click.option("--deadline-s", type=float, help="Seconds until the answer must be there.")
@click.option("--max-tokens", type=int, default=512, show_default=True, help="Length of an answer.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="Randomness of generation.")
@click.option("--seed", type=int, help="Seed of generation.")
@click.option("--epsilon", type=float, help="Most that a private answer may tell of a source.")
@click.option("--delta", type=float, help="Chance that it is more.")
@click.option("--candidate", "candidates", multiple=True, help="What it may be; twice at least.")
@click.option("--explain", is_flag=True, help="Show every draft in full.")
@click.option("--tier", type=click.Choice(["starter", "full", "none"]), help="Local models to run.")
@as_json
@click.pass_obj
def ask(file: str | None, /, words: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Ask the network one question. Without one, it is read from standard input."""
    from manyminds.wire import parse_request

    try:
        question = " ".join(words) or _standard_input()
        request = json.dumps(_request(question, options), ensure_ascii=False).encode()
    except UnicodeError:
        raise InvalidRequestError("The question is not UTF-8 text: convert it first.") from None
    if not question.strip():
        raise InvalidRequestError("There is no question: write it behind `manyminds ask`.")
    query = parse_request(request, request_id=os.urandom(12).hex())
    config = read(file, {"local.tier": options["tier"]})
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    bring_missing(config)
    text, report = asyncio.run(_ask(config, query, quiet=as_json))
    if as_json:
        from manyminds.wire import report_object

        print_json({"answer": text, "manyminds": report_object(report)})
    else:
        from manyminds.cli.panel import show

        show(report, full=options["explain"])


def _standard_input() -> str:
    """All of it; nothing where it is a terminal or closed. Raises: UnicodeError."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode()


def _request(question: str, options: dict[str, Any]) -> dict[str, Any]:
    limits = (
        *("strategy", "include", "exclude", "require", "purpose", "panel", "budget_usd", "deadline_s"),
        *("explain", "epsilon", "delta", "candidates", "grounded"),
    )
    sampling = ("max_tokens", "temperature", "seed")
    return {
        "model": options["model"],
        "messages": [{"role": "user", "content": question}],
        "manyminds": {name: options[name] for name in limits if options[name] not in (None, (), False)},
    } | {name: options[name] for name in sampling if options[name] is not None}


@contextmanager
def _watching(query: "Query", *, quiet: bool) -> "Iterator[tuple[Query, Callable[[], None]]]":
    """The query, whose panel is shown at work where people look on; and what takes that away again.

    It is taken away before the answer is written, which begins where it stood.
    """
    if quiet or not sys.stderr.isatty():
        yield query, lambda: None
        return
    from msgspec.structs import replace
    from rich.console import Console
    from rich.live import Live

    from manyminds.cli.lanes import Lanes

    lanes = Lanes()
    console = Console(stderr=True, markup=False, emoji=False)
    live = Live(
        lanes,
        console=console,
        transient=True,
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield replace(query, watch=lanes.watch), live.stop


async def _ask(config: "Config", query: "Query", *, quiet: bool) -> tuple[str, "Report"]:
    """Answers and, unless quiet, writes the text as it comes. Raises: ManymindsError.

    A terminal obeys nothing in it; what reads it otherwise gets every byte.
    """
    from contextlib import aclosing

    from manyminds.node import Node

    parts: list[str] = []
    shown: Callable[[str], str] = written if sys.stdout.isatty() else str
    report: Report | None = None
    async with Node(config, os.environ) as node:
        await node.load()
        with _watching(query, quiet=quiet) as (watched, seen):
            async with aclosing(node.gateway.stream(watched)) as chunks:
                async for chunk in chunks:
                    parts.append(chunk.text)
                    report = chunk.report
                    if chunk.text or chunk.finish_reason is not None:
                        seen()
                    if not quiet:
                        sys.stdout.write(shown(chunk.text))
                        sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n")
        sys.stdout.flush()
    assert report is not None  # a gateway's last chunk has one
    return "".join(parts), report
