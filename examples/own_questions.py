# %% [markdown]
"""# Is the network better than its best model, on your own questions?

`manyminds eval questions.csv` asks every expert each question once, learns from a half of them, and
measures on the other: who is how right, at which cost. docs/learning.md says how.
"""

# %%
import csv
import json
import random
from collections.abc import Sequence
from itertools import permutations, product
from math import sqrt
from typing import Any

from nodes import fleet, lend, manyminds
from students import serve

# %% [markdown]
# ## The questions
#
# A CSV with the columns `question` and `answer`, and if you like options in `A`, `B`, `C`, and a
# `category`. Yours would be of your own work. These 400 are drawn by lot: sums, and words to sort.

# %%
home = fleet().home("own")
draw = random.Random(7)  # noqa: S311
WORDS = ["apple", "bread", "cloud", "dream", "eagle", "flame", "grape", "house", "ivory", "jelly", "knife"]


def row(question: str, options: Sequence[Any], answer: Any, category: str) -> dict[str, Any]:
    """A line of the CSV."""
    shuffled = zip("ABC", draw.sample(options, 3), strict=True)
    return {"question": question, **dict(shuffled), "answer": answer, "category": category}


sums = draw.sample(list(product(range(11, 90), repeat=2)), 200)
words = draw.sample(list(permutations(WORDS, 3)), 200)
rows = [row(f"How much is {a} + {b}?", [a + b, a + b + 1, a + b + 10], a + b, "sums") for a, b in sums]
rows += [row(f"Which comes first: {', '.join(three)}?", three, min(three), "words") for three in words]
with (home / "questions.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
print((home / "questions.csv").read_text()[:200], "...", sep="")

# %% [markdown]
# ## The experts
#
# With a node of your own these are its models, and this cell is your `manyminds.toml`. Local models take a
# second or so for each question; so that this takes seconds and always finds the same, here are three that
# play a part (students.py): one is good at sums, one at words, and a dear one is fair at both.

# %%
STUDENTS = {
    "counter": {"sums": 0.95, "words": 0.45},
    "reader": {"sums": 0.45, "words": 0.95},
    "scholar": {"sums": 0.85, "words": 0.85},
}
PRICES = {"counter": 0.1, "reader": 0.1, "scholar": 2.0}
url = serve(rows, STUDENTS)
TOML = "".join(
    f"""
[[expert]]
name = "{name}"
url = "{url}"
price_in_usd_per_m = {price}
price_out_usd_per_m = {price}
"""
    for name, price in PRICES.items()
)
(home / "manyminds.toml").write_text(TOML + '[local]\ntier = "none"\n')
lend(home, "all-minilm-l6-v2")  # the encoder, with which the router reads questions

# %% [markdown]
# ## The evaluation, and the frontier
#
# Without `--json` it prints a table. A point is on the frontier where nothing is both cheaper and better;
# `manyminds frontier` draws it. The answers are kept in `questions.manyminds`, so nobody is asked twice.

# %%
found = json.loads(manyminds(home, "eval", "questions.csv", "--json", shown=False))
points = sorted(found["frontier"], key=lambda point: (point["cost_usd_per_1k"], -point["accuracy"]))
print(f"\nOf {found['n_test']} questions, after learning from the others; * is on the frontier:")
print("           name      right  $ per 1,000")
best = 0.0
for point in points:
    kind, name, right, cost = (point[key] for key in ("kind", "name", "accuracy", "cost_usd_per_1k"))
    print(f"{'*' if right > best else ' '} {kind:8} {name:8} {right:6.1%} {cost:12.4f}")
    best = max(best, right)

# %% [markdown]
# ## How little that shows
#
# A share p of n questions is known to 1.96 standard errors, sqrt(p (1 - p) / n). The interval of a gain comes
# from drawing the questions anew, again and again; where it holds 0, nothing is shown.

# %%
n, single = found["n_test"], found["best_single"]
error = 1.96 * sqrt(single["accuracy"] * (1 - single["accuracy"]) / n)
print(f"\nThe best single model, {single['model']}: {single['accuracy']:.1%}, give or take {error:.1%}.")


def show(name: str, gain: float, low: float, high: float) -> None:
    """Prints a gain in points, and what it shows."""
    verdict = "better" if low > 0 else "worse" if high < 0 else "not shown to be better or worse"
    print(f"  {name:8} {100 * gain:+6.1f} points, {100 * low:+.1f} to {100 * high:+.1f}: {verdict}")


print("Gained over it, with 95% intervals:")
for policy in ("max", "cheap", "auto", "fast"):
    show(policy, found[policy]["gain"], *found[policy]["gain_ci95"])

# %% [markdown]
# A quarter of the questions has intervals that are twice as wide; half the width takes four times as many.

# %%
gain, (low, high) = found["cheap"]["gain"], found["cheap"]["gain_ci95"]
print(f"\nThe same gain measured on {n // 4} questions would say about:")
show("cheap", gain, gain - 2 * (gain - low), gain + 2 * (high - gain))
