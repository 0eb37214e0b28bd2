"""`manyminds verify`: check receipts and withdrawals, offline."""

import hashlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.look import plain, print_table, table_of
from manyminds.cli.settings import as_json, print_json

if TYPE_CHECKING:
    from manyminds.network.receipt import Receipt

__all__ = ["verify"]


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--asker", metavar="ID", help="Node id that must have asked.")
@click.option("--answerer", metavar="ID", help="Node id that must have answered.")
@click.option(
    "--request", type=click.Path(exists=True, dir_okay=False), help="The request that it must be of."
)
@click.option("--answer", type=click.Path(exists=True, dir_okay=False), help="The answer that it must be of.")
@as_json
def verify(
    file: str, asker: str | None, answerer: str | None, request: str | None, answer: str | None, as_json: bool
) -> None:
    """Check the receipts in FILE, or of standard input where that is -: with nothing but the keys in them.

    FILE holds receipts as `manyminds ledger receipts --json` prints them, or one as it is kept. Exit code 0
    says that every signature holds, that the answer's node signed, and that all that was named fits.
    Of what `manyminds ledger withdrawals --json` prints, all that nodes have signed is checked.
    """
    from manyminds.network import need

    need()
    value = _read(file)
    if (withdrawn := _withdrawals(value)) is not None:
        _print_withdrawals(withdrawn, as_json=as_json)
        return
    found = [_checked(document) for document in _documents(value, file)]
    for receipt in found:
        if receipt["problem"] is None:
            receipt["problem"] = _unfit(receipt.pop("receipt"), asker, answerer, request, answer)
        else:
            receipt.pop("receipt")
    if as_json:
        print_json(found)
    else:
        _print(found)
    if any(receipt["problem"] for receipt in found):
        sys.exit(1)


def _withdrawals(value: Any) -> list[dict[str, Any]] | None:
    """Of each signed event what it says, and its `problem`; None where these are no withdrawals."""
    every = value if isinstance(value, list) else [value]
    rows = [one for one in every if isinstance(one, dict) and ("event" in one or "capabilities" in one)]
    return [_withdrawal(row) for row in rows if row.get("document", row)] if rows else None


def _withdrawal(row: Mapping[str, Any]) -> dict[str, Any]:
    import msgspec

    from manyminds.errors import CardError
    from manyminds.network.card import signed

    found: dict[str, Any] = {"event": row.get("event"), "at_utc": row.get("at_utc"), "problem": None}
    document = row.get("document", row)
    try:
        card = signed(document.encode() if isinstance(document, str) else msgspec.json.encode(document))
    except CardError as error:
        return found | {"problem": error.message}
    word = card.says.withdrawal
    found |= {"node": card.id, "sequence": card.says.sequence}
    if word is not None:
        said_utc = datetime.fromtimestamp(word.at / 1000, UTC).isoformat(timespec="milliseconds")
        found |= {"said_utc": said_utc, "whole": word.whole, "sources": list(word.sources)}
    if row.get("who", card.id) != card.id:
        found["problem"] = f"it is signed by {card.id}, not by {row['who']}"
    elif word is None and row.get("event") != "returned":
        found["problem"] = "it takes nothing back"
    return found


def _print_withdrawals(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        table = table_of("holds", "event", "node", "said at (UTC)", "what")
        for one in found:
            what = "the node" if one.get("whole") else ", ".join(one.get("sources", ()))
            holds = f"no: {one['problem']}" if one["problem"] else "yes"
            names = (one["event"] or "", one.get("node", ""), one.get("said_utc", ""), what)
            table.add_row(*map(plain, (holds, *names)))
        print_table(table)
    if any(one["problem"] for one in found):
        sys.exit(1)


def _read(file: str) -> Any:
    """What a file holds, as JSON."""
    import msgspec

    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return msgspec.json.decode(text)
    except OSError as error:
        raise click.ClickException(f"Cannot read {file}: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.ClickException(f"{file} is no JSON: {error}.") from None


def _documents(value: Any, file: str) -> list[bytes]:
    """Each receipt of a file, as it is kept."""
    import msgspec

    every = value if isinstance(value, list) else [value]
    if not every:
        raise click.ClickException(f"{file} holds no receipt.")
    documents = []
    for one in every:
        kept = one.get("document", one) if isinstance(one, dict) else one
        documents.append(kept.encode() if isinstance(kept, str) else msgspec.json.encode(kept))
    return documents


def _checked(document: bytes) -> dict[str, Any]:
    from manyminds.errors import SignatureError
    from manyminds.network.receipt import read

    try:
        receipt, signed = read(document)
    except SignatureError as error:
        return {"receipt": None, "problem": error.message}
    return {
        "receipt": receipt,
        "problem": None,
        "at_utc": datetime.fromtimestamp(receipt.at, UTC).isoformat(timespec="milliseconds"),
        "asker": receipt.asker_id,
        "answerer": receipt.answerer_id,
        "countersigned": signed.is_countersigned,
        "price_usd": receipt.price_usd,
        "prompt_tokens": receipt.prompt_tokens,
        "completion_tokens": receipt.completion_tokens,
        "experts": list(receipt.experts),
        "sources": list(receipt.sources),
    }


def _unfit(
    receipt: "Receipt", asker: str | None, answerer: str | None, request: str | None, answer: str | None
) -> str | None:
    """What does not fit what was named; None where all does."""
    if asker is not None and receipt.asker_id != asker:
        return f"it was asked by {receipt.asker_id}"
    if answerer is not None and receipt.answerer_id != answerer:
        return f"it was answered by {receipt.answerer_id}"
    for what, path, expected in (
        ("request", request, receipt.request_sha256),
        ("answer", answer, receipt.answer_sha256),
    ):
        if path is not None and _hashed(Path(path), receipt.nonce) != expected:
            return f"it is of another {what}"
    return None


def _hashed(path: Path, nonce: str) -> str:
    return hashlib.sha256(nonce.encode() + b"\n" + path.read_bytes()).hexdigest()


def _print(found: list[dict[str, Any]]) -> None:
    table = table_of("holds", "at (UTC)", "asked by", "answered by", "signed by", "$", "experts")
    for one in found:
        if "asker" not in one:
            table.add_row(f"no: {plain(one['problem'])}", *[""] * 6)
            continue
        holds = f"no: {one['problem']}" if one["problem"] else "yes"
        signed = "both" if one["countersigned"] else "who answered"
        price, experts = f"{one['price_usd']:.9f}", plain(", ".join(one["experts"]))
        table.add_row(holds, one["at_utc"], one["asker"], one["answerer"], signed, price, experts)
    print_table(table)
