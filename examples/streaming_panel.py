# %% [markdown]
"""# Streaming, with the panel.

The text comes as it is written. The last event of the stream has the object `manyminds`: who said what,
with which weight, how fast, and what the answer owes to whom. With `watch`, events before it tell how the
panel comes along.
"""

# %%
import os
import time
from typing import Any

import openai
from nodes import starter

# %% [markdown]
# Your own node's URL in NODE_URL, and its key, if it wants one, in NODE_KEY. Without, a node with the two
# models of the starter tier is started for as long as this runs.

# %%
URL = os.environ.get("NODE_URL") or starter()
client = openai.OpenAI(base_url=URL, api_key=os.environ.get("NODE_KEY", "any"))


# %%
def ask(model: str, question: str, **wishes: Any) -> tuple[str, dict[str, Any]]:
    """Prints an answer as it comes; returns it, and what the network says of it."""
    print(f"\n{model}: {question}")
    began, pieces, asked = time.monotonic(), [], []
    told: dict[str, Any] = {}
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=60,
        stream=True,
        extra_body={"manyminds": wishes},
    )
    for event in stream:
        fields: dict[str, Any] = event.to_dict()
        told = fields.get("manyminds", told)  # what the last one has is the report
        if told.get("event") == "began":
            asked.append(told["expert"])
            print(f"  {time.monotonic() - began:6.2f} s  {told['expert']} is asked", flush=True)
        elif told.get("event") == "ended":
            expert = asked[told["call"]]
            print(f"  {time.monotonic() - began:6.2f} s  {expert} ends: {told['status']}", flush=True)
        for choice in event.choices:
            if piece := choice.delta.content:
                pieces.append(piece)
                print(f"  {time.monotonic() - began:6.2f} s  {piece!r}", flush=True)
    return "".join(pieces), told


def show(text: str, told: dict[str, Any]) -> None:
    """Prints who said what."""
    print(f"answer, by {told['strategy']}: {text!r}")
    print(f"  {'expert':28} {'weight':>6} {'first':>8} {'done':>8}  said")
    for call in told["panel"]:
        first = "-" if call["ttft_s"] is None else f"{call['ttft_s']:.2f} s"
        said = repr(call["answer"]) if call["status"] == "ok" else call["status"]
        print(f"  {call['expert']:28} {call['weight']:6.3f} {first:>8} {call['seconds']:6.2f} s  {said}")
    for owed in told["attribution"]:
        print(f"  owes to {owed['source']:20} {owed['share']:6.3f}")


# %% [markdown]
# ## A race
#
# Whoever is first to speak is heard, word by word; the other is sent away.

# %%
show(*ask("auto", "Why is the sky blue? Answer in one sentence.", strategy="race", panel=2))

# %% [markdown]
# ## A vote
#
# It is known when the votes are in, so the answer comes in one piece. What each said is in the panel; who
# watches sees them come in.

# %%
show(
    *ask("max", "Where does a chef work?\nA) in a kitchen\nB) in a mine\nC) on the moon", panel=2, watch=True)
)
