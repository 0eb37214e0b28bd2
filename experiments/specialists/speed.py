"""What a generated kilobyte takes on this machine: seconds, CPU seconds, weights that are used.

Knows models and mixtures; trains nothing. Texts are written as they are drawn, one byte after another.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from experiments.specialists.models import Cache, Transformer, forward_flops, parameters
from experiments.specialists.network import PREFIX_BYTES
from experiments.specialists.pool import cores
from experiments.specialists.scoring import Floats
from experiments.specialists.study import Study
from experiments.specialists.training import Lesson, load
from manyminds.combine.mixture import followed, normal, pooled

__all__ = ["Voice", "measured", "written"]

_RUNS: Final = 3
_PROMPTS: Final = 12
_ROWS: Final = 64  # windows at once, where reading is measured


class Voice(NamedTuple):
    """A model with, where it is gated, the source whose units work."""

    model: Transformer
    source: int | None = None


class _Asked(NamedTuple):
    """A prompt, whose models write behind it, and their prior weights."""

    prompt: bytes
    voices: tuple[tuple[Lesson, int | None], ...]
    prior: tuple[float, ...]


def written(
    voices: Sequence[Voice], prior: Floats, prompt: bytes, count: int, seed: int
) -> tuple[bytes, Floats]:
    """`count` bytes behind a prompt, drawn from the mixture of these models; and their weights at the end.

    The models read the prompt first, by which the mixture's weights begin to move. Prompt and text must fit
    the models' context.

    Raises: ValueError where they do not.
    """
    context = min(voice.model.size.context for voice in voices)
    if len(prompt) + count > context:
        raise ValueError(f"{len(prompt)} and {count} bytes do not fit a context of {context}")
    draw, first = np.random.default_rng(seed), normal(prior)
    weights, caches = first, [Cache(voice.model.size) for voice in voices]

    def read(told: bytes) -> Floats:
        """(k, length, 256) log-probabilities of each next byte."""
        tokens = torch.tensor([list(told)])
        logits = [v.model(tokens, v.source, cache)[0] for v, cache in zip(voices, caches, strict=True)]
        return np.stack([torch.log_softmax(one.double(), dim=-1).numpy() for one in logits])

    with torch.inference_mode():
        logs = read(b"\0" + prompt)
        for place, byte in enumerate(prompt):
            weights = followed(weights, logs[:, place, byte], first)
        text = bytearray()
        while True:
            shares = np.exp(pooled(weights, logs[:, -1]))
            byte = int(draw.choice(len(shares), p=shares / shares.sum()))
            weights = followed(weights, logs[:, -1, byte], first)
            text.append(byte)
            if len(text) == count:
                return bytes(text), weights
            logs = read(bytes([byte]))


def measured(study: Study) -> list[dict[str, Any]]:
    """For each arm and way to ask: writing one byte after another, and reading many windows at once.

    Each core writes texts of its own, one at a time, on one thread and with kept keys and values: models of
    this size gain nothing by a second one. Seconds and CPU seconds for a kilobyte are those of one core,
    with the least and the most of three runs; bytes a second are of all cores together. What the router
    takes to choose is part of it.
    """
    every = max(1, len(study.held.test) // _PROMPTS)
    prompts = [one.text[:PREFIX_BYTES] for one in study.held.test[::every]][:_PROMPTS]
    rows = []
    for kind in ("domain", "random", "gated"):
        experts = study.experts(kind)
        for way, panel in (("router, first", 1), ("router, two", 2), ("mixture", len(experts))):
            rows.append(_row(study, kind, way, *_routed(study, experts, prompts, panel)))
    for name in ("dense-small", "dense-large"):
        asked = [_Asked(prompt, (study.voice(name),), (1.0,)) for prompt in prompts]
        rows.append(_row(study, name, "alone", asked, 0.0))
    return rows


def _routed(
    study: Study, experts: Sequence[str], prompts: Sequence[bytes], panel: int
) -> tuple[list[_Asked], float]:
    """Whom each prompt is put to; and the CPU seconds that the router took for each."""
    if panel == len(experts):
        everyone = tuple(study.voice(name) for name in experts)
        return [_Asked(prompt, everyone, (1.0,) * panel) for prompt in prompts], 0.0
    network = study.network(experts)
    spent = time.process_time()
    routes = [network.routes([prompt], panel)[0] for prompt in prompts]
    spent = (time.process_time() - spent) / len(prompts)
    asked = [
        _Asked(prompt, tuple(study.voice(c.expert) for c in r.calls), tuple(c.share for c in r.calls))
        for prompt, r in zip(prompts, routes, strict=True)
    ]
    return asked, spent


def _row(study: Study, arm: str, way: str, asked: Sequence[_Asked], routing_cpu_s: float) -> dict[str, Any]:
    sizes = [lesson.size for lesson, _ in asked[0].voices]
    count = cores()
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        parts = [part.result() for part in [pool.submit(_write, asked, study.folder) for _ in range(count)]]
    own = routing_cpu_s * 1024 / (sizes[0].context - PREFIX_BYTES)
    wall = [one + own for part in parts for one in part["wall"]]
    cpu = [one + own for part in parts for one in part["cpu"]]
    reading = [one for part in parts for one in part["read"]]
    return {
        "arm": arm,
        "way": way,
        "active_parameters": sum(map(parameters, sizes)),
        "flops_per_byte": sum(map(forward_flops, sizes)),
        "routing_cpu_ms": routing_cpu_s * 1000,
        "write_s_per_kb": _spread(wall),
        "write_cpu_s_per_kb": _spread(cpu),
        "write_bytes_per_s": count * 1024 / float(np.median(wall)),
        "read_cpu_s_per_kb": _spread(reading),
        "read_bytes_per_s": count * 1024 / float(np.median(reading)),
    }


def _write(asked: Sequence[_Asked], folder: Path) -> dict[str, list[float]]:
    """Seconds for a kilobyte, in a process of its own: written, in CPU seconds, and read."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    models = {lesson.stem: load(lesson, folder).model for one in asked for lesson, _ in one.voices}
    found: dict[str, list[float]] = {"wall": [], "cpu": [], "read": []}
    for run in range(-1, _RUNS):  # the first is not counted
        began, spent, size = time.perf_counter(), time.process_time(), 0
        for one in asked:
            voices = [Voice(models[lesson.stem], source) for lesson, source in one.voices]
            count = voices[0].model.size.context - len(one.prompt)
            written(voices, np.array(one.prior), one.prompt, count, max(run, 0))
            size += count
        if run >= 0:
            found["wall"].append((time.perf_counter() - began) / size * 1024)
            found["cpu"].append((time.process_time() - spent) / size * 1024)
            found["read"].append(_read([Voice(models[o.stem], source) for o, source in asked[0].voices]))
    return found


def _read(voices: Sequence[Voice]) -> float:
    """CPU seconds for each kilobyte of many windows at once, each by all of these."""
    tokens = torch.zeros((_ROWS, voices[0].model.size.context), dtype=torch.int64)
    spent = time.process_time()
    with torch.inference_mode():
        for voice in voices:
            voice.model(tokens, voice.source)
    took: float = (time.process_time() - spent) / tokens.numel() * 1024
    return took


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}
