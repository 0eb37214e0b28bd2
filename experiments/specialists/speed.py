"""What a generated kilobyte takes on this machine: seconds, CPU seconds, weights that are used.

Knows models and mixtures; trains nothing. Texts are written as they are drawn, one byte after another.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from experiments.specialists.models import Cache, Transformer, forward_flops, parameters
from experiments.specialists.network import PREFIX_BYTES
from experiments.specialists.scoring import Floats
from experiments.specialists.study import Study
from experiments.specialists.training import load
from manyminds.combine.mixture import followed, normal, pooled

__all__ = ["measured", "written"]

_RUNS: Final = 3
_PROMPTS: Final = 12
_ROWS: Final = 64  # texts at once, where throughput is measured


def written(
    models: Sequence[Transformer], prior: Floats, prompt: bytes, count: int, seed: int
) -> tuple[bytes, Floats]:
    """`count` bytes behind a prompt, drawn from the mixture of these models; and their weights at the end.

    The models read the prompt first, by which the mixture's weights begin to move. Prompt and text must fit
    the models' context.

    Raises: ValueError where they do not.
    """
    context = min(model.size.context for model in models)
    if len(prompt) + count > context:
        raise ValueError(f"{len(prompt)} and {count} bytes do not fit a context of {context}")
    draw, first = np.random.default_rng(seed), normal(prior)
    weights, caches = first, [Cache(model.size) for model in models]
    told = torch.tensor([list(b"\0" + prompt)])
    rows = [torch.log_softmax(m(told, cache=c)[0].double(), -1) for m, c in zip(models, caches, strict=True)]
    for place, byte in enumerate(prompt):
        weights = followed(weights, np.array([float(row[place, byte]) for row in rows]), first)
    logs, text = np.stack([row[-1].numpy() for row in rows]), bytearray()
    while True:
        shares = np.exp(pooled(weights, logs))
        byte = int(draw.choice(len(shares), p=shares / shares.sum()))
        weights = followed(weights, logs[:, byte], first)
        text.append(byte)
        if len(text) == count:
            return bytes(text), weights
        told = torch.tensor([[byte]])
        logs = np.stack(
            [
                torch.log_softmax(m(told, cache=c)[0, -1].double(), -1).numpy()
                for m, c in zip(models, caches, strict=True)
            ]
        )


def measured(study: Study) -> list[dict[str, Any]]:
    """For each way to ask: one text after another, and the throughput of reading many at once.

    Writing is by sampling with kept keys and values, one text at a time. Reading is of whole windows. Medians
    of three runs, with the least and the most. On one core: models of this size gain nothing by a second
    one, which writes another text meanwhile.
    """
    torch.set_num_threads(1)
    experts = study.experts("domain")
    network = study.network(experts)
    own = {name: load(study.lessons[name], study.folder).model for name in experts}
    single = {name: load(study.lessons[name], study.folder).model for name in ("dense-small", "dense-large")}
    every = max(1, len(study.held.test) // _PROMPTS)
    prompts = [one.text[:PREFIX_BYTES] for one in study.held.test[::every]][:_PROMPTS]
    rows = []
    for way, panel in (("router, first", 1), ("router, two", 2), ("mixture", len(experts))):

        def models(prompt: bytes, panel: int = panel) -> tuple[list[Transformer], Floats]:
            if panel == len(experts):
                return list(own.values()), np.ones(panel)
            (route,) = network.routes([prompt], panel)
            return [own[call.expert] for call in route.calls], np.array([call.share for call in route.calls])

        rows.append({"way": way, **_timed(models, prompts), **_read(list(own.values())[:panel])})
    for name, model in single.items():
        rows.append(
            {
                "way": name,
                **_timed(lambda prompt, model=model: ([model], np.ones(1)), prompts),
                **_read([model]),
            }
        )
    return rows


def _timed(models: Any, prompts: Sequence[bytes]) -> dict[str, Any]:
    """Of texts of all the context that a prompt leaves."""
    wall, cpu, size, used = [], [], 0, 0
    for run in range(_RUNS):
        began, spent, size = time.perf_counter(), time.process_time(), 0
        for prompt in prompts:
            asked, prior = models(prompt)
            count = asked[0].size.context - len(prompt)
            with torch.inference_mode():
                written(asked, prior, prompt, count, run)
            size += count
            used = sum(parameters(model.size) for model in asked)
        wall.append((time.perf_counter() - began) / size * 1024)
        cpu.append((time.process_time() - spent) / size * 1024)
    return {
        "active_parameters": used,
        "write_s_per_kb": _spread(wall),
        "write_cpu_s_per_kb": _spread(cpu),
        "write_bytes_per_s": 1024 / float(np.median(wall)),
    }


def _read(models: Sequence[Transformer]) -> dict[str, Any]:
    """Of many windows at once, each by all of these models."""
    size = models[0].size
    tokens = torch.zeros((_ROWS, size.context), dtype=torch.int64)
    wall, cpu = [], []
    with torch.inference_mode():
        for _ in range(_RUNS + 1):
            began, spent = time.perf_counter(), time.process_time()
            for model in models:
                model(tokens)
            wall.append((time.perf_counter() - began) / tokens.numel() * 1024)
            cpu.append((time.process_time() - spent) / tokens.numel() * 1024)
    return {
        "read_cpu_s_per_kb": _spread(cpu[1:]),
        "read_bytes_per_s": 1024 / float(np.median(wall[1:])),
        "flops_per_byte": sum(forward_flops(model.size) for model in models),
    }


def _spread(values: Sequence[float]) -> Mapping[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}
