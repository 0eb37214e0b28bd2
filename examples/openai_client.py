# %% [markdown]
"""# The official OpenAI client, against a node.

Nothing but the base URL changes. What a reply owes to whom is in its object `manyminds`, and what you
want of the network goes into a request's. docs/api.md has all of both.
"""

# %%
import os
from typing import Any

import openai
from nodes import starter

# %% [markdown]
# Your own node's URL in NODE_URL, such as http://127.0.0.1:8000/v1, and its key, if it wants one, in
# NODE_KEY. Without, a node with the two models of the starter tier is started for as long as this runs.

# %%
URL = os.environ.get("NODE_URL") or starter()
client = openai.OpenAI(base_url=URL, api_key=os.environ.get("NODE_KEY", "any"))
experts = [model.id for model in client.models.list() if model.owned_by != "manyminds"]
print(f"Asking {URL}, which has: {', '.join(experts)}")

# %% [markdown]
# ## A question
#
# `auto` is a policy: whom to ask is the router's choice.

# %%
reply = client.chat.completions.create(
    model="auto",
    messages=[{"role": "user", "content": "What is the capital of Australia?"}],
    max_tokens=40,
)
print(f"\nauto: {reply.choices[0].message.content}")

# %% [markdown]
# ## The same, streamed

# %%
stream = client.chat.completions.create(
    model="auto",
    messages=[{"role": "user", "content": "What is the capital of Australia?"}],
    max_tokens=40,
    stream=True,
)
print("\nstreamed: ", end="")
for event in stream:
    if event.choices:
        print(event.choices[0].delta.content or "", end="", flush=True)
print()

# %% [markdown]
# ## What you want of the network, and what it says of itself
#
# `extra_body` is the client's own way for fields that OpenAI does not have. Here several experts rate the
# options and vote, one of them with half its weight.

# %%
OPTIONS = "Where does a chef work?\nA) in a kitchen\nB) in a mine\nC) on the moon"
reply = client.chat.completions.create(
    model="max",
    messages=[{"role": "user", "content": OPTIONS}],
    max_tokens=40,
    extra_body={"manyminds": {"strategy": "vote", "panel": 2, "weights": {experts[-1]: 0.5}}},
)
told: Any = reply.to_dict()["manyminds"]
print(f"\nmax, by {told['strategy']}: {reply.choices[0].message.content}")

# %%
print("\nThe panel:")
for call in told["panel"]:
    said = call["error"] or call["answer"]
    print(f"  {call['expert']:30} said {said!r}, with {call['weight']:.3f} of the votes")

print("\nWhat the answer owes to whom:")
for owed in told["attribution"]:
    print(f"  {owed['source']:30} {owed['share']:.3f}, {owed['divergence']:.2f} nats")

probability = told["probability"]
if probability is not None:
    print(f"\nIt is right with a probability of {probability:.2f}, as far as was learnt.")
print(f"It cost ${told['cost_usd']:.8f}; the best single expert's would have, ${told['saved_usd']:.8f} more.")
print(f"The ledger has it as {told['request_id']}.")
