"""`manyminds ask`: one question to the network in this process, the answer streamed, then the panel."""

import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.pull import bring_missing
from manyminds.cli.settings import as_json, print_json, read
from manyminds.errors import InvalidRequestError

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.types import Query, Report

__all__ = ["ask"]


@click.command()
@click.argument("words", nargs=-1, metavar="QUESTION...")
@click.option("--model", "-m", default="auto", show_default=True, help="A policy, or an expert by name.")
@click.option("--strategy", help="vote, select, fuse, race or pass, instead of the policy's choice.")
@click.option("--include", multiple=True, help="Ask only this expert or source; may be repeated.")
@click.option("--exclude", multiple=True, help="Never ask this expert or source; may be repeated.")
@click.option("--panel", type=int, help="Experts to ask at most.")
@click.option("--budget-usd", type=float, help="Most that the answer may cost.")
@click.option("--deadline-s", type=float, help="Seconds until the answer must be there.")
@click.option("--max-tokens", type=int, default=512, show_default=True, help="Length of an answer.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="Randomness of generation.")
@click.option("--seed", type=int, help="Seed of generation.")
@click.option("--explain", is_flag=True, help="Show every draft in full.")
@click.option("--tier", type=click.Choice(["starter", "full", "none"]), help="Local models to run.")
@as_json
@click.pass_obj
def ask(file: str | None, /, words: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Ask the network one question. Without one, it is read from standard input."""
    from manyminds.wire import parse_request

    question = " ".join(words) if words else "" if sys.stdin.isatty() else sys.stdin.read()
    if not question.strip():
        raise InvalidRequestError("There is no question: write it behind `manyminds ask`.")
    query = parse_request(json.dumps(_request(question, options)).encode(), request_id=os.urandom(12).hex())
    config = read(file, {"local.tier": options["tier"]})
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    bring_missing(config)
    text, report = asyncio.run(_ask(config, query, quiet=as_json))
    if as_json:
        from manyminds.wire import report_object

        print_json({"answer": text, "manyminds": report_object(report)})
    else:
        _show(report, full=options["explain"])


def _request(question: str, options: dict[str, Any]) -> dict[str, Any]:
    limits = ("strategy", "include", "exclude", "panel", "budget_usd", "deadline_s", "explain")
    sampling = ("max_tokens", "temperature", "seed")
    return {
        "model": options["model"],
        "messages": [{"role": "user", "content": question}],
        "manyminds": {name: options[name] for name in limits if options[name] not in (None, ())},
    } | {name: options[name] for name in sampling if options[name] is not None}


async def _ask(config: "Config", query: "Query", *, quiet: bool) -> tuple[str, "Report"]:
    """Answers and, unless quiet, writes the text as it comes. Raises: ManymindsError."""
    from contextlib import aclosing

    from manyminds.node import Node

    parts: list[str] = []
    report: Report | None = None
    async with Node(config, os.environ) as node:
        await node.load()
        async with aclosing(node.gateway.stream(query)) as chunks:
            async for chunk in chunks:
                parts.append(chunk.text)
                report = chunk.report
                if not quiet:
                    sys.stdout.write(chunk.text)
                    sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n")
        sys.stdout.flush()
    assert report is not None  # a gateway's last chunk has one
    return "".join(parts), report


def _show(report: "Report", *, full: bool) -> None:
    """The panel, on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True)
    numbers = {"weight": 6, "p(right)": 8, "seconds": 7, "cost": 9, "credit": 6}
    names = max(len(entry.expert) for entry in report.panel)
    room = max(console.width - names - sum(numbers.values()) - 2 * (len(numbers) + 2), 12)
    table = Table(title=_title(report), title_justify="left", title_style="bold", box=None)
    table.add_column("expert", width=names)
    table.add_column("answer", overflow="ellipsis", no_wrap=not full, width=room)
    for heading, width in numbers.items():
        table.add_column(heading, justify="right", no_wrap=True, width=width)
    shares = {a.source: a.share for a in report.attribution}
    for entry in report.panel:
        said = " ".join((entry.error or entry.answer).split())
        how = "fused" if entry.method == "fuse" else "" if entry.status == "ok" else entry.status
        table.add_row(
            Text(entry.expert),
            Text(": ".join(part for part in (how, said) if part)),
            f"{entry.weight:.2f}",
            "–" if entry.correct_probability is None else f"{entry.correct_probability:.2f}",
            f"{entry.seconds:.2f}",
            f"${entry.cost_usd:.6f}",
            f"{shares.get(entry.source, 0.0):.0%}",
        )
    console.print(table)


def _title(report: "Report") -> str:
    parts = [f"{report.policy}: {report.strategy}"]
    if report.agreement is not None:
        parts.append(f"agreement {report.agreement:.0%}")
    if report.probability is not None:
        parts.append(f"probability {report.probability:.2f}")
    parts.append(f"${report.cost_usd:.6f}")
    return ", ".join(parts)
