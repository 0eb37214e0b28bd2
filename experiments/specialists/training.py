"""Trains one model, in windows of documents, from where it was left.

Knows no domain: groups of documents, from which it learns in turn.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from experiments.specialists.models import Size, Transformer, train_flops

__all__ = ["Bytes", "Lesson", "Trained", "load", "steps", "train", "windows"]

_BETAS: Final = (0.9, 0.95)
_DECAY: Final = 0.05
_WARM: Final = 0.03  # of all steps: the rate rises
_COOL: Final = 0.6  # of all steps, at the end: it falls, to _LAST of itself
_LAST: Final = 0.02
_NORM: Final = 1.0  # of a gradient, at most
_KEEP_S: Final = 30.0  # seconds between two checkpoints

Bytes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One model to train.

    Attributes:
        name: of it and of its files.
        size: of it.
        groups: documents; windows are taken of each group in turn.
        rows: windows in a batch; of a gated model that learns of all its sources, as many as these.
        flops: what it may cost, by `models.train_flops`.
        rate: the learning rate, at its highest.
        seed: of first weights and of the documents' order.
        start: the stem of a trained model from whose weights it goes on; "" begins anew.
        only: where set, what is learnt is one source's own units of a gated model, and nothing else.
    """

    name: str
    size: Size
    groups: tuple[tuple[bytes, ...], ...]
    rows: int
    flops: float
    rate: float
    seed: int
    start: str = ""
    only: int | None = None

    @property
    def key(self) -> str:
        """A hash of all that decides what comes out."""
        found = hashlib.sha256(
            repr((self.size, self.rows, self.flops, self.rate, self.seed, self.start, self.only)).encode()
        )
        for group in self.groups:
            found.update(b"group")
            for text in group:
                found.update(hashlib.sha256(text).digest())
        return found.hexdigest()[:16]

    @property
    def stem(self) -> str:
        """Of the names of its files."""
        return f"{self.name}-{self.key}"


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a lesson: its model, what it cost, and the mean loss of its last tenth in bits a byte."""

    model: Transformer
    steps: int
    seen_bytes: int
    flops: float
    cpu_s: float
    loss: float


def steps(lesson: Lesson) -> int:
    """How many batches its budget pays for; at least one."""
    return max(1, round(lesson.flops / (train_flops(lesson.size) * _batch_bytes(lesson))))


def windows(group: Sequence[bytes], count: int, context: int, seed: int) -> Bytes:
    """(count, context + 1) windows of a group's documents, each document whole before the next one begins.

    Documents come in an order drawn by `seed`, all of them before any comes again; 0 is before each. Windows
    lie end to end, with one byte in common: the last to be foretold is the first that the next one reads.

    Raises: ValueError where there are not enough bytes for one window.
    """
    draw = np.random.default_rng(seed)
    needed = count * context + 1
    if not group or sum(len(text) + 1 for text in group) <= context:
        raise ValueError(f"a group of {len(group)} documents has not {context} bytes to learn from")
    pieces, size = list[Bytes](), 0
    while size < needed:
        for i in draw.permutation(len(group)):
            pieces.append(np.frombuffer(b"\0" + group[i], np.uint8))
            size += len(pieces[-1])
            if size >= needed:
                break
    stream = np.concatenate(pieces)[:needed]
    starts = np.arange(count) * context
    found: Bytes = stream[starts[:, None] + np.arange(context + 1)]
    return found


def train(lesson: Lesson, folder: Path, tell: Callable[[float], None] = lambda share: None) -> Trained:
    """Trains, or goes on where its checkpoint in `folder` was, or loads what was trained.

    Deterministic on one thread of a processor; where there is a GPU it trains there. `tell` hears the share
    that is done. Whoever ends it loses half a minute.

    Raises: ValueError for a lesson without data; FileNotFoundError where what it starts from is not there.
    """
    done, part = _paths(lesson, folder)
    if done.is_file():
        tell(1.0)
        return load(lesson, folder)
    if lesson.size.sources and lesson.only is None and lesson.rows != lesson.size.sources:
        raise ValueError(f"{lesson.name}: a batch of {lesson.rows} windows for {lesson.size.sources} sources")
    total = steps(lesson)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _begun(lesson, folder).to(device)
    if lesson.only is not None:
        for name, weights in model.named_parameters():
            weights.requires_grad_(".own_" in name)  # other sources' have no gradient, so they stay
    learnt = [weights for weights in model.parameters() if weights.requires_grad]
    decay = _DECAY if lesson.only is None else 0.0
    optimizer = torch.optim.AdamW(learnt, lr=lesson.rate, betas=_BETAS, weight_decay=decay, fused=True)
    state: dict[str, Any] = {"step": 0, "cpu_s": 0.0, "losses": []}
    if part.is_file():
        state = torch.load(part, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    data = _batches(lesson, total)
    kept, spent = time.monotonic(), time.process_time()
    for step in range(state["step"], total):
        for group in optimizer.param_groups:
            group["lr"] = lesson.rate * _pace(step, total)
        state["losses"].append(_step(model, optimizer, torch.from_numpy(data[step]).to(device), lesson))
        if time.monotonic() - kept > _KEEP_S:
            state |= {"step": step + 1, "cpu_s": state["cpu_s"] + time.process_time() - spent}
            _keep(part, state | {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
            kept, spent = time.monotonic(), time.process_time()
            tell((step + 1) / total)
    state["cpu_s"] += time.process_time() - spent
    last = state["losses"][-max(1, total // 10) :]
    loss = sum(last) / len(last) / math.log(2)
    _keep(done, {"model": model.cpu().state_dict(), "cpu_s": state["cpu_s"], "loss": loss})
    part.unlink(missing_ok=True)
    tell(1.0)
    return load(lesson, folder)


def load(lesson: Lesson, folder: Path) -> Trained:
    """What was trained. Raises: FileNotFoundError."""
    state = torch.load(_paths(lesson, folder)[0], weights_only=True)
    model = Transformer(lesson.size, lesson.seed)
    model.load_state_dict(state["model"])
    model.eval().requires_grad_(False)
    count = steps(lesson)
    seen = count * _batch_bytes(lesson)
    return Trained(model, count, seen, seen * train_flops(lesson.size), state["cpu_s"], state["loss"])


def _batch_bytes(lesson: Lesson) -> int:
    return lesson.rows * lesson.size.context


def _batches(lesson: Lesson, total: int) -> Bytes:
    """(total, rows, context + 1): a window of each group in turn, whatever the batch."""
    context, of = lesson.size.context, len(lesson.groups)
    each = -(-total * lesson.rows // of)
    turns = np.stack([windows(group, each, context, lesson.seed) for group in lesson.groups], axis=1)
    return turns.reshape(-1, context + 1)[: total * lesson.rows].reshape(total, lesson.rows, context + 1)


def _pace(step: int, total: int) -> float:
    return min(1.0, (step + 1) / (_WARM * total)) * max(_LAST, min(1.0, (total - step) / (_COOL * total)))


def _step(model: Transformer, optimizer: torch.optim.Optimizer, rows: Tensor, lesson: Lesson) -> float:
    """Learns from a batch; returns its loss in nats a byte."""
    tokens = rows.long()
    logits = model(tokens[:, :-1], lesson.only)
    loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _NORM)
    optimizer.step()
    return float(loss.item())


def _begun(lesson: Lesson, folder: Path) -> Transformer:
    """Its first weights: drawn, or of what it starts from.

    A gated model may have more sources than the one from which it starts: theirs are drawn.
    """
    torch.manual_seed(lesson.seed)
    model = Transformer(lesson.size, lesson.seed)
    if not lesson.start:
        return model
    state = torch.load(folder / f"{lesson.start}.pt", weights_only=True)["model"]
    own = model.state_dict()
    for name, weights in state.items():
        if own[name].shape == weights.shape:
            own[name] = weights
        else:
            own[name][: len(weights)] = weights
    model.load_state_dict(own)
    return model


def _paths(lesson: Lesson, folder: Path) -> tuple[Path, Path]:
    return folder / f"{lesson.stem}.pt", folder / f"{lesson.stem}.part"


def _keep(path: Path, state: dict[str, Any]) -> None:
    """Whole, or not at all."""
    half = path.with_name(f"{path.name}.{os.getpid()}")
    torch.save(state, half)
    half.replace(path)
