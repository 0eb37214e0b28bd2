# %% [markdown]
"""# A model of one's own, on one's own terms.

Ann has a model. She lets others ask it for teaching, never for more than a fifth of an answer, and says
how far it may move their answers in a month. Bob has two models, and agrees. docs/owners.md and
docs/network.md say what the terms mean and what cannot be forced.
"""

# %%
import json
from typing import Any

import openai
from nodes import fleet, manyminds

from manyminds.evals.fleet import until
from manyminds.evals.speaker import name as speaks

# %% [markdown]
# ## Two nodes
#
# On your machine each is a `manyminds.toml` and `manyminds serve`, with the URL of a real model server:
# vLLM, Ollama or a provider. These models only play a part: they say one letter, whatever they are asked.
# Ann's node answers by HTTP here, on one machine; between machines it takes HTTPS, and its address is
# `network.url`.

# %%
own = fleet()
ANN = f"""
[[expert]]
name = "leafy"                # the model to publish
url = "{own.speaker}"         # where it answers
model = "{speaks("B", 1)}"    # its name there
accuracy = 0.8                # as she says; what is measured of it counts from then on
skills = ["plant diseases"]

[network]
name = "ann"
url = "https://ann.example"
answers = "listed"            # whom she has agreed with, and nobody else
purposes = ["teaching"]       # what answers may be for
max_share = 0.2               # of what an answer owes to all sources
budget_nats = 6.0             # how far it moves all answers of a period
period = "month"
"""
BOB = f"""
[[expert]]
name = "moss"
url = "{own.speaker}"
model = "{speaks("B", 1)}"
accuracy = 0.8

[[expert]]
name = "fern"
url = "{own.speaker}"
model = "{speaks("B", 1)}"
accuracy = 0.8

[network]
name = "bob"
"""
ann, bob = own.start({"ann": ANN, "bob": BOB})

# %% [markdown]
# ## They agree
#
# Each tells the own node whom it may ask or answer: the other's URL, or the id that `federate` prints.

# %%
agreed = manyminds(
    bob.folder, "federate", ann.url.removesuffix("/v1"), "--name", "ann", "--json", shown=False
)
manyminds(ann.folder, "federate", json.loads(agreed)["own_id"], "--name", "bob")
if not until(lambda: "ann" in bob.experts(), 30.0):
    raise SystemExit("Bob's node did not find Ann's.")
until(lambda: "was read anew" in (ann.folder / "serve.log").read_text(), 30.0)

# %% [markdown]
# ## An answer on her terms
#
# Bob states the purpose, and that Ann's model shall be part of the answer. He would have it count twenty
# times as much as what he believes of it; by her terms its votes are weighed down again, until the answer
# owes her no more than a fifth.

# %%
client = openai.OpenAI(base_url=bob.url, api_key="any", max_retries=0)
messages: Any = [
    {"role": "user", "content": "What makes leaves go white?\nA) salt\nB) mildew\nC) wind\nD) frost"}
]


def ask(**wishes: Any) -> None:
    """Prints an answer by vote, who said what, what is owed, and what was granted."""
    wishes = {"strategy": "vote", "panel": 3, **wishes}
    reply = client.chat.completions.create(model="max", messages=messages, extra_body={"manyminds": wishes})
    told: Any = reply.to_dict()["manyminds"]
    print(f"  {reply.choices[0].message.content}")
    for call in told["panel"]:
        print(f"  {call['expert']:5} said {call['answer']}")
    for owed in told["attribution"]:
        print(f"  owed to {owed['source']:5} a share of {owed['share']:.3f}, {owed['divergence']:.3f} nats")
    for terms in told.get("granted", ()):
        print("  terms:", ", ".join(f"{name} {value!r}" for name, value in terms.items()))


def said(refused: openai.APIStatusError) -> str:
    """An error's status and message."""
    body: Any = refused.body
    return f"{refused.status_code}, {body['message']}"


print("Asked for teaching:")
ask(purpose="teaching", require=["ann"], weights={"ann": 20})

# %% [markdown]
# ## A purpose that is not hers
#
# Where she is required, there is no answer; else there is one without her.

# %%
print("\nAsked for advertising:")
try:
    ask(purpose="advertising", require=["ann"])
except openai.APIStatusError as refused:
    print(f"  refused: {said(refused)}")
print("Asked for advertising, by whoever may be asked:")
ask(purpose="advertising")

# %% [markdown]
# ## What it was used for
#
# Ann's own ledger: each answer of hers has a receipt that both nodes have signed. Bob's signature comes
# when his answer is known, with how far hers has moved it.

# %%
print()
until(lambda: " both " in manyminds(ann.folder, "ledger", "receipts", shown=False), 30.0)
manyminds(ann.folder, "ledger", "receipts")
manyminds(ann.folder, "ledger", "settle", "--by-purpose")

# %% [markdown]
# Anybody can check a receipt, with nothing but the keys in it.

# %%
receipts = ann.folder / "receipts.json"
receipts.write_text(manyminds(ann.folder, "ledger", "receipts", "--json", shown=False))
manyminds(ann.folder, "verify", receipts.name)
