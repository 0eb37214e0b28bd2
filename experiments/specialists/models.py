"""Byte-level transformers, plain and gated by source, and what they cost in floating-point operations.

Knows no data, no training and no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BYTES", "Cache", "Size", "Transformer", "forward_flops", "parameters", "train_flops"]

BYTES: Final = 256
"""Tokens of the vocabulary. 0 begins a document: none of them has it."""

_TAPS: Final = 4  # bytes that a block's convolution sees
_BASE: Final = 500.0  # of rotary positions, for contexts of some hundred bytes
_SHARE: Final = 2  # one in so many hidden units of a gated block belongs to a source alone


@dataclass(frozen=True, slots=True)
class Size:
    """Of a model.

    Attributes:
        width: of the residual stream; a multiple of `heads`.
        layers: blocks.
        heads: of attention.
        context: bytes that it sees at most.
        sources: that have hidden units of their own; 0 is a plain model.
    """

    width: int
    layers: int
    heads: int
    context: int = 128
    sources: int = 0

    @property
    def hidden(self) -> int:
        """Hidden units of a block that one answer uses."""
        return 4 * self.width

    @property
    def own(self) -> int:
        """Of these, those of one source alone."""
        return self.hidden // _SHARE if self.sources else 0


def parameters(size: Size, *, active: bool = True) -> int:
    """Weights that one answer uses, or, where not `active`, all that there are."""
    held = 1 if active or not size.sources else size.sources
    block = size.width * (1 + _TAPS + 3 * size.width + size.width)
    block += 2 * size.width * (size.hidden - size.own + held * size.own)
    return size.layers * block + size.width * (2 * BYTES + 1)


def forward_flops(size: Size, positions: Sequence[int] | None = None) -> float:
    """Floating-point operations for each byte that is read, over windows of the whole context.

    Two for each multiplication with a weight, and for those of attention with the bytes before: at position t
    (from 1) 4 t width for each block. Norms, activations and the embedding, below 1% together, are left out.
    `positions`: which of a window are counted; all of them unless told.
    """
    seen = range(1, size.context + 1) if positions is None else positions
    before = sum(seen) / len(seen)
    block = 2 * size.width * (_TAPS + 4 * size.width + 2 * size.hidden) + 4 * before * size.width
    return size.layers * block + 2 * size.width * BYTES


def train_flops(size: Size) -> float:
    """For each byte that is learnt from: the backward pass costs two forward ones (Kaplan et al. 2020)."""
    return 3 * forward_flops(size)


class Cache:
    """Keys, values and the last bytes' normed states of one text that is being written."""

    def __init__(self, size: Size) -> None:
        head = size.width // size.heads
        self.length = 0
        self.keys = torch.zeros(size.layers, 1, size.heads, size.context, head)
        self.values = torch.zeros_like(self.keys)
        self.last = torch.zeros(size.layers, 1, _TAPS - 1, size.width)


class _Block(nn.Module):
    """Attention and a feed-forward layer beside each other (Wang & Komatsuzaki 2021).

    Both read the same convolved states (a depthwise convolution over four bytes, as of So et al. 2021), with
    rotary positions (Su et al. 2021) and squared ReLU (So et al. 2021).
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        width, shared = size.width, size.hidden - size.own
        self.norm = nn.LayerNorm(width, bias=False)
        self.taps = nn.Parameter(torch.zeros(_TAPS, width))
        self.inner = nn.Linear(width, 3 * width + shared, bias=False)
        self.outer = nn.Linear(width + shared, width, bias=False)
        if size.sources:
            self.own_inner = nn.Parameter(torch.empty(size.sources, width, size.own))
            self.own_outer = nn.Parameter(torch.empty(size.sources, size.own, width))

    def forward(
        self, x: Tensor, angles: Tensor, source: int | None, cache: Cache | None, layer: int
    ) -> Tensor:
        batch, length, width = x.shape
        size, states = self.size, self._convolved(self.norm(x), cache, layer)
        query, key, value, hidden = self.inner(states).split(
            [width, width, width, size.hidden - size.own], dim=-1
        )
        heads = (batch, length, size.heads, width // size.heads)
        query = _turned(query.view(heads).transpose(1, 2), angles)
        key, value = _turned(key.view(heads).transpose(1, 2), angles), value.view(heads).transpose(1, 2)
        causal = True
        if cache is not None:
            stop = cache.length + length
            cache.keys[layer, :, :, cache.length : stop] = key
            cache.values[layer, :, :, cache.length : stop] = value
            causal = not cache.length
            key, value = cache.keys[layer, :, :, :stop], cache.values[layer, :, :, :stop]
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        found = found.transpose(1, 2).reshape(batch, length, width)
        y: Tensor = x + self.outer(torch.cat([found, functional.relu(hidden).square()], dim=-1))
        return y + self._owned(states, source) if size.sources and source != -1 else y

    def _convolved(self, x: Tensor, cache: Cache | None, layer: int) -> Tensor:
        """Each state and its three predecessors, weighed by channel."""
        if cache is None:
            padded = functional.pad(x, (0, 0, _TAPS - 1, 0))
        else:
            padded = torch.cat([cache.last[layer], x], dim=1)
            cache.last[layer] = padded[:, -(_TAPS - 1) :]
        length = x.shape[1]
        y = x * self.taps[0]
        for back in range(1, _TAPS):
            start = _TAPS - 1 - back
            y = y + padded[:, start : start + length] * self.taps[back]
        return y

    def _owned(self, states: Tensor, source: int | None) -> Tensor:
        """What a source's own units add. Without a source, the batch has as many rows of each, in order."""
        if source is not None:
            hidden = functional.relu(states @ self.own_inner[source]).square()
            return hidden @ self.own_outer[source]
        batch, length, width = states.shape
        by_source = states.reshape(self.size.sources, -1, width)
        hidden = functional.relu(torch.bmm(by_source, self.own_inner)).square()
        return torch.bmm(hidden, self.own_outer).view(batch, length, width)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions: `x` (batch, heads, length, 2k), `angles` (2, length, k) cosines and sines."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Transformer(nn.Module):
    """Says how likely each next byte is.

    Args:
        size: of it.
        seed: of its first weights: same seed and size, same weights.
    """

    angles: Tensor

    def __init__(self, size: Size, seed: int) -> None:
        super().__init__()
        if size.width % (2 * size.heads):
            raise ValueError(f"a width of {size.width} is no multiple of twice {size.heads} heads")
        self.size = size
        self.embedding = nn.Embedding(BYTES, size.width)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width, bias=False)
        self.out = nn.Linear(size.width, BYTES, bias=False)
        half = size.width // size.heads // 2
        turns = torch.arange(size.context)[:, None] * _BASE ** (-torch.arange(half) / half)
        self.register_buffer("angles", torch.stack([turns.cos(), turns.sin()]), persistent=False)
        self._draw(torch.Generator().manual_seed(seed))

    def _draw(self, draw: torch.Generator) -> None:
        """Matrices at 1/sqrt(inputs), those that end a branch or the model at less."""
        for name, weights in self.named_parameters():
            if name.endswith("taps"):
                nn.init.zeros_(weights)
                nn.init.ones_(weights[0])
            elif name == "embedding.weight":
                nn.init.normal_(weights, generator=draw)
            elif weights.dim() > 1:
                inputs = weights.shape[1]  # of a Linear its second axis, and of (sources, in, out) too
                inputs = inputs if "own_outer" not in name else self.size.hidden
                scale = 0.3 if name.endswith(("outer.weight", "own_outer", "out.weight")) else 1.0
                nn.init.normal_(weights, std=scale * inputs**-0.5, generator=draw)

    def forward(self, tokens: Tensor, source: int | None = None, cache: Cache | None = None) -> Tensor:
        """Logits (batch, length, 256) of the byte behind each of `tokens` (batch, length), int64.

        Args:
            tokens: at most the context's length, with what `cache` holds.
            source: of a gated model, whose own units work: one source's, or -1 for none. None is the
                training's way: as many rows of each source, in their order.
            cache: of one text; what is read is added to it.
        """
        start = cache.length if cache is not None else 0
        angles = self.angles[:, start : start + tokens.shape[1]]
        x = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            x = block(x, angles, source, cache, layer)
        if cache is not None:
            cache.length += tokens.shape[1]
        logits: Tensor = self.out(self.norm(x))
        return logits
