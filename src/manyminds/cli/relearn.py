"""`manyminds experts relearn`: what was learnt, without who was withdrawn. A node has it done by itself."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from manyminds.cli import errand
from manyminds.cli.evaluate import bars
from manyminds.cli.keys import opened
from manyminds.cli.newcomers import identities
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from pathlib import Path

    from manyminds.config import Config
    from manyminds.ledger import Gone, Ledger

__all__ = ["learn_again", "made_anew", "relearn", "welcome"]

_LOOK_S: Final = 5.0
_AGAIN_S: Final = 600.0  # after which it is tried again where it failed

log = logging.getLogger(__name__)


@click.command("relearn")
@as_json
@click.pass_obj
def learn_again(file: str | None, as_json: bool) -> None:
    """Learn anew, without those who were withdrawn, what was learnt with them: if anything was.

    `experts remove` does so by itself, and so does a node that runs. This goes on where that was stopped.
    """
    config = read(file, {})
    with opened(file) as ledger:
        found = made_anew(config, ledger, "", "", ())
    if as_json:
        print_json(found)
    else:
        click.echo(
            "What was learnt is without them." if found["relearnt"] else "Nothing was learnt with them."
        )


def made_anew(
    config: "Config", ledger: "Ledger", expert: str, source: str, names: tuple[str, ...]
) -> dict[str, Any]:
    """Makes what was learnt anew without who is gone, and writes into the ledger what it is now.

    Raises: ManymindsError, OSError: see `forgetting.forget`.
    """
    from manyminds.evals.forgetting import forget, is_clean
    from manyminds.ledger import Withdrawal
    from manyminds.node.learnt import digest_of, state_of

    home, gone = config.home, ledger.gone()
    before, clean = digest_of(home), is_clean(home, gone)
    if not clean:
        with bars() as progress:
            forget(home, gone, identities(config), progress)
    after, state = digest_of(home, gone), state_of(home)
    if expert or source or not clean:
        ledger.withdraw(
            Withdrawal(
                *("relearnt", expert, source, names),
                artefact_before=before,
                artefact_after=after,
                state=state,
            )
        )
    return {"relearnt": not clean, "artefact_before": before, "artefact_after": after, "state": state}


def welcome(file: str | None, name: str) -> None:
    """Whoever is added under a name that was withdrawn begins as new. Raises: LedgerError."""
    from manyminds.evals.forgetting import names_of

    with opened(file) as ledger:
        ledger.welcome(name, names_of(name))


async def relearn(
    gone: "Callable[[], Gone]", config: "Callable[[], Config]", *, look_s: float = _LOOK_S
) -> None:
    """Until it is cancelled, has what was learnt made anew whenever somebody was withdrawn, beside this node.

    Args:
        gone: who is, as it is now.
        config: as it is now.
        look_s: seconds between two looks.
    """
    loop = asyncio.get_running_loop()
    done, due_s = 0, 0.0
    while True:
        await asyncio.sleep(look_s)
        if gone().last == done or loop.time() < due_s:
            continue
        last = gone().last
        try:
            if await asyncio.to_thread(_is_clean, config().home, gone()) or await _made_anew(config()):
                done = last
                continue
        except Exception:
            log.exception("whether what was learnt is without who was withdrawn is not known")
        due_s = loop.time() + _AGAIN_S


def _is_clean(home: "Path", gone: "Gone") -> bool:
    """In a thread: what it imports takes a moment, and most nodes never need it."""
    from manyminds.evals.forgetting import is_clean

    return is_clean(home, gone)


async def _made_anew(config: "Config") -> bool:
    """In a process of low priority, so that whoever is answered meanwhile does not notice."""
    log.info("What was learnt is made anew without who was withdrawn.")
    if wrong := await errand.run(config, "experts", "relearn", "--json"):
        log.warning("What was learnt could not be made anew: %s", wrong)
    else:
        log.info("What was learnt is without who was withdrawn.")
    return not wrong
