"""Made-up questions for distilling an encoder where no recorded ones are at hand.

They mean nothing, but are built as questions are: a token's neighbours, and so what the encoder makes of
it, are nearer to life than in random words. The same words and seed give the same questions everywhere.
"""

import re
from collections.abc import Sequence

import numpy as np

__all__ = ["make_questions"]

_SHAPES = r"""
What is the {w} of {w} in {w}?
Which of the following statements about {w} and {w} is correct?
Which {w} is responsible for {w} in the {w} of {w} cells?
Who wrote the {w} {w}?
Explain how {w} affects the {w} of {w}, and why {w} matters to {w}.
According to {w} theory, the {w} of a {w} that is {w} is best described as
In the year {n}, the {w} of {w} signed a {w} with the {w}. What was the result for the {w}?
The {w} court held that the {w} was not liable for the {w} because the {w} had {w}.
If the price of {w} rises by {n}%, what happens to the demand for {w} and the supply of {w}?
The company's {w} was ${n},000 and its {w} {n}%. Determine the {w} for the {w}.
A patient aged {n} presents with {w}, {w} and {w}. What is the most likely {w}?
A {w} of mass {n} kg moves at {n} m/s through a {w}. What is its {w}?
Calculate the {w} of a {w} with radius {n} cm and height {n} cm.
{N} has {n} {w}. He gives {n} of them to {w} and buys {n} more {w} for ${n} each. How many {w} are left?
{N} sells {n} {w} a day at ${n} each. How much money does she make in {n} weeks?
Find the sum of all {w} integers $x$ such that $x^{n} + {n}x - {n} = 0$.
Let $f(x) = \frac{{n}x + {n}}{x - {n}}$. Compute $f({n})$.
Let $ABC$ be a triangle with $AB = {n}$ and $\angle BAC = {n}^\circ$. Find the {w} of its {w}.
How many ways are there to choose {n} {w} from {n} {w} so that no two {w} are {w}?
Write a Python function that returns the {w} of a list of {w}.
Write a SQL query that selects the {w} of every {w} where {w} is greater than {n}.
Fix the bug: TypeError: '{w}' object is not {w} in {w}.py line {n}
Can you find the {w} of {w} with {w} {n} and {w} {n}?
What is the weather in {N}, {N} on {n} {w}?
Book a {w} from {N} to {N} for {n} people with {w} included.
Translate "{w} {w} {w}" into {w}.
Summarise: the {w} {w} was {w} by the {w}, who had {w} it for {n} years before the {w} of {w}.
How do I make {w} with {w} and {w}?
"""
_SLOT = re.compile(r"\{[wNn]\}")


def make_questions(words: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` texts of one to three such questions each, the slots filled from `words` and with numbers."""
    draw = np.random.default_rng(seed)
    shapes = _SHAPES.strip().splitlines()

    def fill(slot: re.Match[str]) -> str:
        if slot[0] == "{n}":
            return str(draw.integers(1, 20 if draw.random() < 0.5 else 2000))
        word = words[int(draw.integers(len(words)))]
        return word.title() if slot[0] == "{N}" else word

    def ask() -> str:
        return _SLOT.sub(fill, shapes[int(draw.integers(len(shapes)))])

    return [" ".join(ask() for _ in range(int(draw.choice([1, 1, 1, 2, 3])))) for _ in range(count)]
