"""What a node says of itself to others. Makes its card; knows no transport."""

import re
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from manyminds.config import Network
from manyminds.index.shelves import k_means
from manyminds.network import card as cards
from manyminds.network.card import Claim, Claims, Skill, Vouch, quantised, unit_rows
from manyminds.network.identity import Identity
from manyminds.network.withdrawal import Withdrawal
from manyminds.types import Card

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["PASSED", "Portrait"]

PASSED: Final = frozenset({"tools", "json_schema", "image", "logprobs", "n", "citations"})
"""What experts offer that can also be had through another node."""

_VALID_S: Final = 900  # it is shown anew long before
_CENTROIDS: Final = 64  # skills at most
_LABEL_CHARS: Final = 60  # of what a skill is called


class Portrait(Struct, frozen=True):
    """What does not change while a node serves.

    Attributes:
        identity: by which it signs.
        terms: under which it answers.
        encoder: sha256 of the encoder whose vectors skills are, "" where there is none.
        dimension: of these vectors.
        version: of the software.
    """

    identity: Identity
    terms: Network
    encoder: str
    dimension: int
    version: str

    def card(
        self,
        own: Sequence[Card],
        skills: "Vectors",
        behind: Sequence[Claims],
        vouches: Sequence[Vouch] = (),
        member: str = "",
        withdrawal: Withdrawal | None = None,
        labels: Sequence[str] = (),
    ) -> bytes:
        """The card, signed. Some milliseconds.

        Args:
            own: cards of its experts.
            skills: (k, d) float32 unit rows, of these.
            behind: what the nodes claim that it speaks for.
            vouches: what it says of other nodes.
            member: proof that it knows the secret of the network where this is shown.
            withdrawal: what it takes back.
            labels: of each of `skills`, what it is about in a few words, "" where that is not known; or none.

        Raises: CardError.
        """
        terms, now_s = self.terms, time.time()
        chat = [card for card in own if "embeddings" not in card.offers]
        offers = {offer for card in chat for offer in card.offers}
        if any("citations" in other.offers for other in behind):
            offers.add("citations")
        paragraphs = sum(card.paragraphs for card in own) + sum(other.paragraphs for other in behind)
        says = Claims(
            key="",
            exchange="",
            sequence=int(now_s * 1000),
            expires=int(now_s) + _VALID_S,
            protocols=(cards.PROTOCOL,),
            experts=len(own) + sum(other.experts for other in behind),
            parameters=sum(card.parameters for card in own) + sum(other.parameters for other in behind),
            paragraphs=paragraphs,
            levels=1 + max((other.levels for other in behind), default=0),
            encoder=self.encoder,
            skills=self._skills(skills, behind, labels, means=paragraphs > 0),
            claims=(Claim(round(max(card.accuracy for card in chat), 3)),) if chat else (),
            vouches=tuple(vouches),
            member=member,
            withdrawal=withdrawal,
            price_in_usd_per_m=terms.price_in_usd_per_m,
            price_out_usd_per_m=terms.price_out_usd_per_m,
            ttft_s=min((card.ttft_s for card in chat), default=1.0),
            tokens_per_s=max((card.tokens_per_s for card in chat), default=20.0),
            context_tokens=max((card.context_tokens for card in chat), default=8192),
            offers=tuple(sorted(offers & PASSED)),
            terms=cards.Terms(
                *(terms.purposes, terms.answers, terms.requests_per_min, terms.callers),
                terms.max_share if terms.max_share < 1.0 else None,
                *(terms.budget_nats, terms.period, terms.epsilon, terms.delta),
            ),
        )
        return cards.made(
            self.identity,
            says,
            name=terms.name or _machine(),
            description=f"{says.experts} experts behind one node.",
            words=list(dict.fromkeys(word[:100] for card in own for word in card.skills))[:24],
            url=terms.url,
            version=self.version,
        )

    def _skills(
        self, own: "Vectors", behind: Sequence[Claims], labels: Sequence[str], *, means: bool
    ) -> tuple[Skill, ...]:
        """Of many skills, the centroids, how many are near each, and what the nearest is called.

        Where some are `means` of paragraphs' vectors, all are as long as what they stand for lies close.
        """
        rows, counts = [own], [np.ones(len(own))]
        names = list(labels) if len(labels) == len(own) else [""] * len(own)
        for other in behind:
            vectors = unit_rows(other.skills, self.dimension, means=other.paragraphs > 0)
            if other.encoder == self.encoder and len(vectors) == len(other.skills):
                rows.append(vectors)
                counts.append(np.array([skill.count for skill in other.skills], float))
                names += [skill.label for skill in other.skills]
        every, count = np.concatenate(rows), np.concatenate(counts)
        if len(every) > _CENTROIDS:
            every = np.ascontiguousarray(every)
            units = every / np.linalg.norm(every, axis=1, keepdims=True)
            centroids = k_means(units, _CENTROIDS, np.random.default_rng(0))
            close = every @ centroids.T
            nearest = np.argmax(close, axis=1)
            near = np.bincount(nearest, weights=count, minlength=_CENTROIDS).astype(float)
            named = [i for i, name in enumerate(names) if name]
            names = [
                max(((close[i, j], names[i]) for i in named if nearest[i] == j), default=(0.0, ""))[1]
                for j in range(_CENTROIDS)
                if near[j] > 0
            ]
            if means:
                tight = np.bincount(nearest, weights=count * close.max(axis=1), minlength=_CENTROIDS)
                centroids = centroids * np.clip(tight / np.maximum(near, 1), 0.01, 1.0)[:, None]
            every, count = centroids[near > 0], near[near > 0]
        return tuple(
            Skill(quantised(row), max(1, int(n)), name[:_LABEL_CHARS])
            for row, n, name in zip(every, count, names, strict=True)
        )


def _machine() -> str:
    """What the machine is called, as far as it is a name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")[:32] or "node"
