"""Five nodes on this machine, as `make demo-network` shows them: found, asked, one killed, and who owes what.

The asker, the library and the slowpoke have joined one network. The hub and the workshop are another, of
another organisation: the asker's owner and the hub's have federated, and the asker knows the two as one.
"""

import json
import sys
import time
from threading import Timer

from nodes import manyminds, pulled

from manyminds.evals.fleet import Fleet, Running, free_port, until
from manyminds.evals.speaker import name as speaks

QUESTION = "Which of these is an animal?\nA) chair\nB) dog\nC) stone\nD) cloud"


def main() -> None:
    outer, inner = free_port(), free_port()
    with Fleet() as fleet:
        say("Starting five nodes, each a process with its own key, models and ledger ...")
        slow = f'name = "mumbler"\nmodel = "{speaks("A", 200, 50)}"\nurl = "{fleet.speaker}"\naccuracy = 0.7'
        fleet.start(
            {
                "library": node("library", local("qwen2.5-coder-0.5b"), listen=outer),
                "workshop": node("workshop", local("qwen2.5-coder-0.5b"), listen=inner),
            }
        )
        (slowpoke, hub, asker) = fleet.start(
            {
                "slowpoke": node("slowpoke", slow, join=outer),
                "hub": node("hub", "", join=inner)
                + 'answers = "listed"\nprice_in_usd_per_m = 0.1\nprice_out_usd_per_m = 0.4\n',
                "asker": node("asker", "", join=outer),
            }
        )
        say("The hub and the asker belong to two organisations, and agree:")
        url = hub.url.removesuffix("/v1")
        agreed = run(asker, "federate", url, "--pay-usd", "1", "--name", "hub", "--json")
        run(hub, "federate", json.loads(agreed)["own_id"], "--name", "asker", "--owe-usd", "1")
        names = {"library", "slowpoke", "hub"}
        if not until(lambda: asker.experts() == names, 30.0):
            sys.exit(f"The nodes did not find each other: {asker.experts()}")
        until(lambda: "workshop" in hub.experts(), 30.0)
        until(lambda: "was read anew" in (hub.folder / "serve.log").read_text(), 30.0)  # whom it answers
        for expert in asker.get("/v1/experts")["data"]:
            print(f"  the asker sees {expert['name']:10} {expert['description']}")

        say(f"The asker, which has no model of its own, asks all three:\n\n{QUESTION}\n")
        Timer(1.5, killed, [slowpoke]).start()
        wish = {"panel": 3, "strategy": "vote", "cache": "off"}
        body = {"model": "max", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60}
        began = time.monotonic()
        reply = asker.ask(body | {"manyminds": wish})
        seconds = time.monotonic() - began
        if "choices" not in reply:
            sys.exit(f"No answer came: {reply}")
        print(f"\n  {reply['choices'][0]['message']['content']!r} after {seconds:.1f} s\n")
        for entry in reply["manyminds"]["panel"]:
            print(
                f"  {entry['expert']:10} {entry['status']:10} ${entry['cost_usd']:.8f}  "
                f"{(entry['error'] or entry['answer'])[:70]!r}"
            )

        say("What the asker wrote down:")
        print(run(asker, "ledger", "receipts", "--request", reply["manyminds"]["request_id"]))
        say("What the hub wrote down of the same, and of the node behind it:")
        print(run(hub, "ledger", "receipts"))
        print(run(hub, "ledger", "settle"))
        say("Anybody can check the asker's receipts, with nothing but the keys in them:")
        receipts = asker.folder / "receipts.json"
        receipts.write_text(run(asker, "ledger", "receipts", "--json"))
        print(run(asker, "verify", str(receipts)))


def killed(node: Running) -> None:
    print(f"  ... {node.name} is killed in the midst of its answer", flush=True)
    node.kill()


def node(name: str, expert: str, *, listen: int | None = None, join: int | None = None) -> str:
    where = f'listen = "tcp/127.0.0.1:{listen}"' if listen else f'join = ["tcp/127.0.0.1:{join}"]'
    own = f"[[expert]]\n{expert}\n" if expert else ""
    return f'{own}[network]\nname = "{name}"\n{where}\n'


def local(name: str) -> str:
    """An expert that is a model of this machine."""
    (path,) = pulled(name).values()
    return f'name = "{name}"\nkind = "local"\npath = "{path}"'


def run(at: Running, *words: str) -> str:
    """A command in that node's home: what it prints."""
    return manyminds(at.folder, *words, shown=False)


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
