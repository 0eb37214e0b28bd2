"""Who is let in: keys, limits and budgets, as the ledger has them; and the secret of a network."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from manyminds.admission import Admission
from manyminds.config import Config
from manyminds.errors import ConfigError
from manyminds.ledger import Ledger
from manyminds.node.roster import Shared

__all__ = ["opened", "secret_of"]


async def opened(
    ledger: Ledger,
    config: Config,
    shared: Shared | None,
    in_thread: Callable[..., Awaitable[Any]],
    *,
    open: bool,  # noqa: A002 - as `Admission` calls it
) -> Admission:
    """What lets callers in, with what an earlier process left recovered.

    Args:
        ledger: keeps keys and budgets.
        config: its `server` says how many are answered at once.
        shared: where several processes serve one address.
        in_thread: calls a method of the ledger where nothing waits for it.
        open: whether callers without a key are let in.

    Raises: LedgerError.
    """

    async def lease(key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
        granted: int = await in_thread(ledger.lease, key_id, period, want_nusd, limit_nusd)
        return granted

    async def give_back(key_id: str, period: str, nusd: int) -> None:
        await in_thread(ledger.give_back, key_id, period, nusd)

    admission = Admission(
        await in_thread(ledger.keys),
        open=open,
        most_at_once=config.server.most_at_once,
        lease=lease,
        give_back=give_back,
        board=shared.board if shared else None,
        column=shared.column if shared else 0,
        recall=shared.recall if shared else None,
    )
    await admission.recover()
    return admission


def secret_of(config: Config, environ: Mapping[str, str]) -> str:
    """What all nodes of the network share, "" where nothing. Raises: ConfigError where it is not set."""
    name = config.network.secret_env
    found = environ.get(name, "").strip() if name else ""
    if name and not found:
        raise ConfigError(f"The network's secret is in {name}, which is not set: export it first.")
    return found
