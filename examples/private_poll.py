# %% [markdown]
"""# A private poll, and what it hides.

`private` asks many sources and releases one answer with noise in it, so that nobody can tell what any one
of them said. What all answers together may tell of a source is limited for ever. docs/privacy.md says
what is promised, and why it holds.
"""

# %%
from typing import Any

import openai
from nodes import fleet, manyminds

from manyminds.evals.speaker import name as speaks

# %% [markdown]
# ## Twelve sources
#
# Each would be somebody else's model. These only play a part: nine say B, three say A, whatever they are
# asked. A poll spends what its sources may ever tell, so this one is not held at a node of yours.

# %%
own = fleet()
TOML = "".join(
    f"""
[[expert]]
name = "clinic-{i:02}"
url = "{own.speaker}"
model = "{speaks(letter, 1)}"
accuracy = 0.8
"""
    for i, letter in enumerate("BBBABBBABBBA")
)
(node,) = own.start({"poll": TOML + "[private]\nsource_epsilon = 8.0\n"})
client = openai.OpenAI(base_url=node.url, api_key="any", max_retries=0)
QUESTION = "Did you see more cases this week than last week?\nA) yes\nB) no"


# %%
def said(refused: openai.APIStatusError) -> str:
    """An error's status and message."""
    body: Any = refused.body
    return f"{refused.status_code}, {body['message']}"


def poll(**limits: Any) -> dict[str, Any]:
    """The whole reply to one private question."""
    message: Any = {"role": "user", "content": QUESTION}
    reply = client.chat.completions.create(
        model="private", messages=[message], extra_body={"manyminds": limits}
    )
    return reply.to_dict()


# %% [markdown]
# ## In the clear
#
# A vote by any other policy says who said what.

# %%
asked: Any = [{"role": "user", "content": QUESTION}]
reply = client.chat.completions.create(
    model="max",
    messages=asked,
    extra_body={"manyminds": {"strategy": "vote", "panel": 12}},
)
told: Any = reply.to_dict()["manyminds"]
print(f"In the clear: {reply.choices[0].message.content}, and everybody can see:")
print("  " + ", ".join(f"{call['expert']} {call['answer']}" for call in sorted(told["panel"], key=str)))

# %% [markdown]
# ## In private
#
# Epsilon is the most that the answer tells of any one source, delta the chance that it is more.

# %%
private: Any = poll(epsilon=4.0, delta=1e-6)
print(f"\nIn private: {private['choices'][0]['message']['content']}. All that is said of it:")
for key, value in private["manyminds"].items():
    print(f"  {key}: {value}")
hidden = sorted(told.keys() - private["manyminds"].keys())
print(f"What is not: {', '.join(hidden)}")

# %% [markdown]
# ## Too few sources
#
# Less epsilon takes more noise, in which twelve votes would drown. Then nobody is asked, nothing is spent,
# and the refusal says what it would take.

# %%
try:
    poll(epsilon=1.0)
except openai.UnprocessableEntityError as refused:
    print(f"\nAt epsilon 1: {said(refused)}")

# %% [markdown]
# ## Until all is told
#
# Each source may tell no more than epsilon 8 in all its answers. So the poll goes on for a few rounds, whose
# answers may differ by their noise, and ends with the numbers.

# %%
print("\nAsked again and again at epsilon 4:")
while True:
    try:
        private = poll(epsilon=4.0)
    except openai.UnprocessableEntityError as refused:
        print(f"  {said(refused)}")
        break
    print(f"  {private['choices'][0]['message']['content']}")

# %% [markdown]
# ## The account of each source
#
# Nothing of what was said is in the ledger, only how much of it may have been told.

# %%
print()
manyminds(node.folder, "ledger", "privacy")
