"""What the admin's endpoints say, made up: as much of each as a test wants, the same for the same numbers."""

import random
from typing import Any, Final

__all__ = [
    "HOSTILE",
    "NOBODY",
    "RECORDED",
    "everything",
    "experts",
    "frontier",
    "ledger",
    "library",
    "network",
    "request",
    "traffic",
]

HOSTILE: Final = (
    "<img src=x onerror=\"document.title='broken in'\">",
    "</script><script>document.title='broken in'</script>",
    "\u202egnp.exe",
    "מומחה־עברי",
    "W" * 300,
    "quote \" and ' and & and \\ and `${1}`",
    "../../etc/passwd",
    "🦉" * 40,
)
"""Names that somebody may give his expert, to see what comes of it."""

_FIELDS: Final = {
    "mathematics": ("algebra", "geometry", "number theory", "statistics"),
    "law": ("contracts", "property", "courts"),
    "medicine": ("anatomy", "diagnosis", "drugs"),
    "programming": ("Python", "SQL", "web pages"),
    "history": ("antiquity", "wars"),
    "chemistry": ("organic", "reactions"),
    "languages": ("translation", "grammar"),
}
_MODELS: Final = (
    *(
        ("quince-4b", "quince"),
        ("gorse-12b", "gorse"),
        ("larch-70b", "larch"),
        ("maple-small", "maple"),
    ),
    *(("pine-14b", "pine"), ("gale-mini", "gale"), ("clover-small", "clover"), ("leafy-7b", "ann")),
    *(("herbarium", "ann"), ("sorrel-1.7b", "sorrel"), ("dune-v3", "dune"), ("acme", "acme")),
)

NOBODY: Final[dict[str, Any]] = {
    "experts": {"data": []},
    "library": {"sections": [], "experts": 0, "vectors": 0, "parameters": 0, "last": None},
    "frontier": {"since_utc": "2026-11-16T00:00:00+00:00", "experts": [], "policies": []},
    "network": {"node": None, "peers": [], "receipts": [], "more": 0},
    "ledger": {
        "requests": [],
        "more": 0,
        "totals": {"day": [], "key": [], "expert": [], "policy": []},
        "budgets": [],
        "privacy": [],
        "sources": [],
    },
}
"""What a node says to which nothing was ever added."""


def everything(n: int = 12) -> dict[str, Any]:
    """What each endpoint of a node with `n` experts says."""
    return {
        "experts": experts(n),
        "library": library(n),
        "frontier": frontier(n),
        "network": network(n),
        "ledger": ledger(n),
    }


def names(n: int) -> list[tuple[str, str]]:
    """Experts and their sources."""
    more = ((f"{_MODELS[i % len(_MODELS)][0]}-{i}", f"source-{i // 3}") for i in range(len(_MODELS), n))
    return [*_MODELS, *more][:n]


# --- experts ---------------------------------------------------------------------------------------


def experts(n: int, called: tuple[str, ...] = ()) -> dict[str, Any]:
    """`n` experts; the first of them are `called` so."""
    told = [_expert(i, name, source) for i, (name, source) in enumerate(names(n))]
    for expert, name in zip(told, called, strict=False):
        expert |= {"name": name, "source": name, "description": name, "skills": [name], "model": name}
    return {"data": told}


def _expert(i: int, name: str, source: str) -> dict[str, Any]:
    pick = random.Random(i)
    kind, origin = (("openai", "added"), ("local", "catalogue"), ("documents", "file"), ("peer", "peer"))[
        (0, 0, 0, 0, 1, 0, 0, 1, 2, 1, 0, 3)[i % 12]
    ]
    price = 0.0 if kind == "local" else round(pick.choice((0.1, 0.4, 1.0, 2.5)) * pick.uniform(0.8, 1.2), 2)
    right = round(pick.uniform(0.55, 0.93), 3)
    terms = {
        "purposes": [],
        "callers": [],
        "max_share": 1.0,
        "budget_nats": None,
        "period": "month",
        "requests_per_min": None,
        "epsilon": None,
        "delta": None,
    }
    if source == "ann":
        terms |= {
            "purposes": ["research", "teaching"],
            "callers": ["uni-*", "from:*"],
            "max_share": 0.6,
            "budget_nats": 60.0,
            "requests_per_min": 600,
        }
    return {
        "name": name,
        "kind": kind,
        "source": source,
        "model": f"{name}-instruct",
        "description": f"{name} answers questions of all sorts, best those about {list(_FIELDS)[i % 7]}.",
        "skills": list(list(_FIELDS.values())[i % 7]),
        "accuracy": round(min(0.99, right + pick.uniform(-0.05, 0.15)), 2),
        "price_in_usd_per_m": price,
        "price_out_usd_per_m": 4 * price,
        "price_cpu_usd_per_hour": 0.0,
        "context_tokens": 131_072,
        "tasks": [],
        "offers": [["tools", "json_schema"], ["tools"], [], ["logprobs", "score"]][i % 4],
        "parameters": pick.choice((4, 12, 70)) * 10**9,
        "paragraphs": 4_210 if kind == "documents" else 0,
        "licence": "Apache-2.0",
        "terms": terms,
        "drifted_utc": "2026-11-19T09:00:00.000+00:00" if i % 12 == 10 else None,
        "ratings": {
            "hour": _rating(pick, right, price, 9),
            "day": _rating(pick, right, price, 130),
            "week": _rating(pick, right, price, 800, fails=0.34 if i % 12 == 6 else 0.02)
            if i % 12 != 9
            else _rating(pick, right, price, 0),
        },
        "paused": i % 12 == 3,
        "spared": i % 12 == 8,
        "running": i % 12 != 9,
        "origin": origin,
    }


def _rating(
    pick: random.Random, right: float, price: float, calls: int, fails: float = 0.02
) -> dict[str, Any]:
    if not calls:
        empty = dict.fromkeys(
            (
                "uptime",
                "ttft_p50_s",
                "ttft_p95_s",
                "tokens_per_s_p50",
                "tokens_per_s_p95",
                "usd_per_m",
                "claimed_usd_per_m",
                "charged_ratio",
                "accuracy",
            )
        )
        return {"calls": 0, **empty, "errors": {}, "graded": 0, "sections": []}
    failed = int(calls * fails)
    ttft = pick.uniform(0.12, 1.1)
    sections = [
        {
            "section": name,
            "accuracy": min(1.0, max(0.0, right + pick.uniform(-0.2, 0.1))),
            "graded": pick.randrange(3, 60),
        }
        for name in pick.sample(list(_FIELDS), 4)
    ]
    return {
        "calls": calls,
        "uptime": 1 - failed / calls,
        "ttft_p50_s": ttft,
        "ttft_p95_s": ttft * pick.uniform(1.6, 4),
        "tokens_per_s_p50": pick.uniform(14, 160),
        "tokens_per_s_p95": 9.1,
        "usd_per_m": 2.2 * price,
        "claimed_usd_per_m": 2.1 * price,
        "charged_ratio": None if not price else pick.uniform(0.95, 1.5),
        "errors": {"SlowError": failed // 2, "UnavailableError": failed - failed // 2} if failed else {},
        "accuracy": right,
        "graded": calls // 3,
        "sections": sections,
    }


# --- library ---------------------------------------------------------------------------------------


def library(n: int) -> dict[str, Any]:
    """`n` books, on the shelves of their fields; each has a shelf or two."""
    told: list[dict[str, Any]] = []
    for f, (field, topics) in enumerate(_FIELDS.items()):
        shelves = []
        for t, topic in enumerate(topics):
            books = [
                _book(i, name, source, topic)
                for i, (name, source) in enumerate(names(n))
                if (i * 7 + f + 2 * t) % 5 < 2
            ]
            if books:
                shelves.append({"label": topic, "size": len(books), "books": books})
        told.append({"label": field, "size": sum(shelf["size"] for shelf in shelves), "shelves": shelves})
    told = [section for section in told if section["size"]]
    here = told[0]["shelves"][0]["books"]
    last = {
        "request_id": "req-7f3a90c1",
        "at_utc": "2026-11-23T14:03:22.120+00:00",
        "section": told[0]["label"],
        "considered": [name for name, _ in names(n)][:64],
        "asked": [book["name"] for book in here[:3]],
        "answered": here[0]["name"],
    }
    return {"sections": told, "experts": n, "vectors": 8 * n, "parameters": 12 * n * 10**9, "last": last}


def _book(i: int, name: str, source: str, topic: str) -> dict[str, Any]:
    pick = random.Random(f"{i} {topic}")
    chapters = [
        {
            "label": label,
            "asked": asked,
            "right": pick.uniform(0.7, 0.98) if asked else None,
            "peers": pick.uniform(0.5, 0.75) if asked else None,
        }
        for label, asked in (
            (f"{topic}, worded", pick.randrange(20, 90)),
            (f"{topic}: proofs", pick.randrange(5, 40)),
            (topic, 0),
        )
    ]
    return {
        "name": name,
        "kind": "openai",
        "source": source,
        "paused": i % 12 == 3,
        "chapters": chapters[: 1 + i % 3],
    }


# --- frontier --------------------------------------------------------------------------------------


def frontier(n: int) -> dict[str, Any]:
    """Models that cost more the better they are, about; policies before them."""
    told = []
    for i, (name, _) in enumerate(names(n)):
        pick = random.Random(i)
        cost = 0.0 if i % 12 in (4, 7, 9) else 10 ** pick.uniform(-2, 1.2)
        right = min(
            0.95,
            0.62
            + 0.09 * (cost > 0)
            + 0.05 * max(0.0, 2 + pick.uniform(-1, 1)) * (cost > 0.1)
            + pick.uniform(-0.12, 0.1),
        )
        graded = 0 if i % 12 == 9 else pick.randrange(20, 400)
        told.append(
            {
                "name": name,
                "accuracy": right if graded else None,
                "graded": graded,
                "claimed_accuracy": 0.8,
                "cost_usd_per_1k": cost,
                "calls": 800 + i,
            }
        )
    policies = [("fast", 0.79, 0.06), ("cheap", 0.86, 0.31), ("auto", 0.905, 1.1), ("max", 0.945, 9.4)]
    rows = [
        {"policy": name, "accuracy": right, "graded": 210, "cost_usd_per_1k": cost, "requests": 640}
        for name, right, cost in policies
    ]
    return {"since_utc": "2026-11-16T14:00:00.000+00:00", "experts": told, "policies": rows}


RECORDED: Final[dict[str, Any]] = {
    "set": "mmlu_pro",
    "category": None,
    "models": 4,
    "n_test": 5_624,
    "best_single": {"model": "gemini-3.1-pro", "accuracy": 0.8613, "cost_usd_per_1k": 5.17},
    "baselines": {"oracle": {"accuracy": 0.96, "cost_usd_per_1k": None}},
    "max": {
        "accuracy": 0.8787,
        "cost_usd_per_1k": 19.7,
        "gain": 0.0174,
        "gain_ci95": [0.014, 0.021],
        "cost_ratio": 3.81,
    },
    "cheap": {
        "accuracy": 0.859,
        "cost_usd_per_1k": 4.0,
        "gain": -0.0023,
        "gain_ci95": [-0.006, 0.001],
        "cost_ratio": 0.77,
    },
    "auto": {
        "accuracy": 0.8744,
        "cost_usd_per_1k": 5.11,
        "gain": 0.0131,
        "gain_ci95": [0.01, 0.016],
        "cost_ratio": 0.99,
    },
    "fast": None,
    "frontier": [
        {"name": "gemini-3.1-pro", "kind": "model", "accuracy": 0.8613, "cost_usd_per_1k": 5.17},
        {"name": "small", "kind": "model", "accuracy": 0.51, "cost_usd_per_1k": 0.0},
        {"name": "middling", "kind": "model", "accuracy": 0.74, "cost_usd_per_1k": 0.4},
        {"name": "auto", "kind": "network", "accuracy": 0.8744, "cost_usd_per_1k": 5.11},
        {"name": "max", "kind": "network", "accuracy": 0.8787, "cost_usd_per_1k": 19.7},
    ],
}
"""As much as is read of what `manyminds eval DIR --json` prints."""


# --- network and ledger ----------------------------------------------------------------------------


def network(n: int) -> dict[str, Any]:
    """About half as many peers as there are experts."""
    peers = []
    for i in range(max(1, n // 2)):
        pick = random.Random(i)
        name = ("greenhouse", "acme", "uni-oslo", "laptop", "harbour", "quarry")[i % 6] + (
            "" if i < 6 else f"-{i}"
        )
        kept = pick.randrange(4, 900)
        peers.append(
            {
                "id": f"{pick.getrandbits(128):032x}",
                "name": name,
                "up": i % 5 != 4,
                "transport": "https" if i % 3 == 1 else "zenoh",
                "ttft_p50_s": pick.uniform(0.1, 2) if i % 5 != 4 else None,
                "uptime": pick.uniform(0.9, 1) if i % 5 != 4 else None,
                "trust": pick.uniform(0.5, 0.95),
                "deeds": {"kept": kept, "cut": i % 3, "overcharged": int(i % 6 == 5)},
                "experts": pick.randrange(1, 40),
                "owed_to_it_usd": kept * 2.1e-4,
                "owed_by_it_usd": kept * 1.3e-4,
                "answers_from_it": kept,
                "answers_to_it": kept // 2,
            }
        )
    receipts = [
        {
            "at_utc": f"2026-11-23T{13 - i % 9:02}:{(53 * i) % 60:02}:11.204+00:00",
            "peer": peers[i % len(peers)]["id"],
            "role": "asked" if i % 3 else "answered",
            "purpose": "research" if i % 4 == 0 else "",
            "prompt_tokens": 180 + 31 * i,
            "completion_tokens": 90 + 17 * i,
            "price_usd": 0.00021 * (1 + i % 5),
            "countersigned": i % 7 != 3,
            "request_id": f"req-{random.Random(i).getrandbits(32):08x}",
        }
        for i in range(min(n, 20))
    ]
    return {
        "node": {"id": "0b" * 16, "name": "home", "url": None},
        "peers": peers,
        "receipts": receipts,
        "more": 214,
    }


def ledger(n: int) -> dict[str, Any]:
    """`n` requests, three weeks of days, the rest in proportion."""
    every = names(max(n, 3))
    rows = [request(i, [every[(i + j) % len(every)] for j in range(1 + i % 3)]) for i in range(n)]
    totals = {
        "day": [
            _sum("day", f"2026-11-{day:02}", random.Random(day).uniform(0.02, 0.9))
            for day in range(3, 24)
            if day not in (8, 15)
        ],
        "key": [_sum("key", name, share) for name, share in (("", 1.1), ("uni-oslo", 6.4), ("webshop", 2.7))],
        "expert": [_sum("expert", name, random.Random(name).uniform(0, 2)) for name, _ in every],
        "policy": [
            _sum("policy", name, share)
            for name, share in (("auto", 6.1), ("cheap", 0.7), ("max", 3.0), ("private", 0.4))
        ],
    }
    budgets = [
        {"key": "k1", "name": "uni-oslo", "period": "month", "limit_usd": 20.0, "spent_usd": 6.4},
        {"key": "k2", "name": "webshop", "period": "day", "limit_usd": 1.0, "spent_usd": 0.87},
        {"key": "k3", "name": "trial", "period": "total", "limit_usd": 0.5, "spent_usd": 0.5},
    ]
    privacy = [
        {
            "source": source,
            "epsilon": spent,
            "most_epsilon": 8.0,
            "delta": 1e-6,
            "rho": spent / 9,
            "most_rho": 0.9,
        }
        for (_, source), spent in zip(every, (1.21, 6.9, 3.4), strict=False)
    ]
    uses = [
        {"purpose": "research", "answers": 210, "nats": 21.5, "shares": 60.1, "estimated": 4},
        {"purpose": "", "answers": 32, "nats": 2.5, "shares": 8.1, "estimated": 0},
    ]
    owed = {"answers": 242, "nats": 24.0, "shares": 68.2, "estimated": 4, "purposes": uses}
    free = {"budget_nats": None, "period": None, "budget_spent_nats": None}
    sources = [
        {"source": "ann", **owed, "budget_nats": 60.0, "period": "month", "budget_spent_nats": 24.3},
        {"source": "quince", **owed, **free},
    ]
    return {
        "requests": rows,
        "more": 0 if n < 50 else 1_200,
        "totals": totals,
        "budgets": budgets,
        "privacy": privacy,
        "sources": sources,
    }


def request(i: int, asked: list[tuple[str, str]]) -> dict[str, Any]:
    """One request as the ledger tells it, newest for 0."""
    pick = random.Random(i)
    failed = i % 9 == 5
    calls = [
        {
            "expert": name,
            "source": source,
            "stage": j,
            "method": "generate",
            "status": "failed" if failed and j == 0 else "ok",
            "ttft_s": 0.31,
            "seconds": pick.uniform(0.4, 3),
            "prompt_tokens": 210,
            "completion_tokens": 88,
            "cpu_s": 0.0,
            "cost_usd": pick.uniform(0, 0.004),
            "share": 0.5,
            "probability": 0.8,
            "prior": None,
            "claimed_usd": None,
            "basis": None,
            "error": "SlowError" if failed and j == 0 else None,
        }
        for j, (name, source) in enumerate(asked)
    ]
    return {
        "id": 10_000 - i,
        "request_id": f"req-{pick.getrandbits(32):08x}-{i}",
        "at_utc": f"2026-11-23T{14 - i // 20 % 12:02}:{59 - (i * 3) % 60:02}:08.120+00:00",
        "key": ("uni-oslo", "webshop", "")[i % 3],
        "policy": ("auto", "cheap", "max")[i % 3],
        "strategy": ("vote", "select", "fuse")[i % 3],
        "status": "failed" if failed and len(asked) == 1 else "ok",
        "seconds": pick.uniform(0.3, 4),
        "cost_usd": sum(call["cost_usd"] for call in calls),
        "saved_usd": 0.002,
        "probability": pick.uniform(0.6, 0.99),
        "agreement": 0.67,
        "section": list(_FIELDS)[i % 7],
        "purpose": "research" if i % 4 == 0 else None,
        "question": None,
        "answer": None,
        "calls": calls,
    }


def _sum(by: str, name: str, cost: float) -> dict[str, Any]:
    requests = int(cost * 410) + 1
    return {
        by: name,
        "requests": requests,
        "calls": 3 * requests,
        "cost_usd": cost,
        "prompt_tokens": 640 * requests,
        "completion_tokens": 210 * requests,
    }


def traffic(requests: int = 0) -> dict[str, Any]:
    """What the node says of itself every second."""
    return {
        "event": "traffic",
        "at_utc": "2026-11-23T14:03:22.120+00:00",
        "in_flight": 1,
        "requests": requests,
        "requests_per_min": 4.2,
        "cost_usd": 0.52,
        "cost_usd_per_min": 0.002,
        "experts": 12,
        "running": 10,
        "peers": 6,
        "ledger_queued": 0,
    }
