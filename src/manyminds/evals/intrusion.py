"""Attacks by HTTPS: what is believed, and what an honest request costs meanwhile. A part of `network`.

One node asks another by HTTPS. Beside it are peers whose addresses somebody has taken over; then somebody
floods the node that answers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from manyminds.errors import ManymindsError
from manyminds.evals.attacks import compared
from manyminds.evals.fleet import Fleet, Progress, Running, expert, free_port, network, says, until
from manyminds.evals.intruder import FLOODS, NODES, OLD, TAKEN, played
from manyminds.evals.speaker import name as model
from manyminds.network import card as cards
from manyminds.network.ask import new_ask, seal_ask
from manyminds.network.http import ASK_PATH, CARD_PATH
from manyminds.network.identity import Identity

__all__ = ["measure"]

_ROUND_S: Final = 13.0  # in which each peer's card is looked at again
_ASK: Final = b'{"model":"auto","messages":[{"role":"user","content":"Say so."}],"max_tokens":1}'


def measure(
    asked: int,
    seed: int,
    progress: Progress,
    kinds: Sequence[str] = (*TAKEN, *FLOODS),
    round_s: float = _ROUND_S,
) -> dict[str, Any]:
    """Figures of each kind of attack.

    Args:
        asked: questions that are timed while an attack lasts, and without it.
        seed: of intervals.
        progress: told how far it is.
        kinds: see `intruder`, in that order.
        round_s: for which cards are shown, while the questions are asked: some are looked at once a round.

    Raises: ManymindsError.
    """
    with TemporaryDirectory(prefix="manyminds-intrusion-") as made:
        folder = Path(made)
        certificate = _certify(folder)
        with Fleet(certificate) as fleet:
            asker, honest, taken_port = _started(fleet, folder)
            found: dict[str, Any] = {"taken_over": NODES}
            for i, kind in enumerate(kinds):
                progress("attack by HTTPS", i / len(kinds))
                if kind in TAKEN:
                    pause_s = round_s / asked
                    found[kind] = _taken(fleet, asker, kind, (taken_port, folder), asked, seed, pause_s)
                else:
                    found[f"flood_{kind}"] = _flood(fleet, asker, honest, kind, folder, asked, seed)
    return found


def _started(fleet: Fleet, folder: Path) -> tuple[Running, Running, int]:
    """Who asks, who answers, and the port at which the other peers' addresses are."""
    taken, own = free_port(), fleet.identity("asker")
    tls = f'[server]\ntls_cert = "{folder}/certificate.pem"\ntls_key = "{folder}/key.pem"\n'
    sage = expert("sage", model("B", 1), fleet.speaker)
    asks = _peer("asker", own.id, "requests_per_min = 1000000")
    (honest,) = fleet.start({"honest": network("honest", more='answers = "listed"') + tls + sage + asks})
    peers = [_peer(f"friend-{i}", played(i).id, _url(taken, f"/{i}")) for i in range(NODES)]
    peers.append(_peer("honest", fleet.identity("honest").id, _url(urlsplit(honest.url).port)))
    (asker,) = fleet.start({"asker": network("asker") + "".join(peers)})
    if not until(lambda: "honest" in asker.experts(), 30.0):
        raise ManymindsError("the nodes did not find each other within 30 s")
    shown = honest.raw(CARD_PATH)
    (folder / "card.json").write_bytes(shown)
    (folder / "peer").write_bytes(own.public)
    (folder / "ask").write_bytes(_heard(own, shown))
    honest.raw(ASK_PATH, (folder / "ask").read_bytes())  # it is answered once
    return asker, honest, taken


def _peer(name: str, node: str, more: str) -> str:
    return f'[[peer]]\nname = "{name}"\nid = "{node}"\n{more}\n'


def _url(port: int | None, path: str = "") -> str:
    return f'url = "https://localhost:{port}{path}"'


def _heard(own: Identity, card: bytes) -> bytes:
    """An ask as it went over the line, which somebody has kept."""
    node = cards.read(card)
    ask = new_ask(own, node.id, _ASK, deadline_s=30, budget_usd=0, hops=0, visited=())
    return seal_ask(own, ask, node.exchange)


def _taken(
    fleet: Fleet, asker: Running, kind: str, at: tuple[int, Path], asked: int, seed: int, pause_s: float
) -> dict[str, Any]:
    """Who shows cards in others' places."""
    port, folder = at
    believed: dict[str, int] = {}

    def look() -> None:
        experts = [e for e in asker.get("/v1/experts")["data"] if e["name"] != "honest"]
        believed["listed"] = len(experts)
        believed["old_cards"] = sum(OLD in str(e) for e in experts)
        believed["answers"] = sum(bool(says(asker, f"friend-{i}")) for i in range(NODES))

    found = compared(
        lambda: says(asker, "honest").startswith("B)"),
        lambda: fleet.running("manyminds.evals.intruder", kind, str(port), str(folder)),
        asked,
        seed,
        pause_s=pause_s,
        at_end=look,
    )
    if not until(lambda: asker.experts() == {"honest"}, 30.0):
        raise ManymindsError("whoever has gone is listed still after 30 s")
    return {**believed, **found}


def _flood(
    fleet: Fleet, asker: Running, honest: Running, kind: str, folder: Path, asked: int, seed: int
) -> dict[str, Any]:
    """Who asks what nobody should answer."""
    counts: list[tuple[float, float]] = []
    port = str(urlsplit(honest.url).port)

    def calls() -> float:
        return honest.figure("expert_calls_total", expert="sage")

    @contextmanager
    def flood() -> Iterator[None]:
        (folder / "count").write_text("0")
        with fleet.running("manyminds.evals.intruder", kind, port, str(folder)):
            before = calls()
            yield
            counts.append((float((folder / "count").read_text()), calls() - before))

    found = compared(lambda: says(asker, "honest").startswith("B)"), flood, asked, seed)
    ((sent, answered),) = counts
    return {"sent": int(sent), "answered": int(answered - asked), **found}


def _certify(folder: Path) -> Path:
    """A certificate for this machine that vouches for itself, in certificate.pem, and its key in key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    (folder / "key.pem").chmod(0o600)
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "certificate.pem"
