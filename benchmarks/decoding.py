"""Whether token-level mixtures and speculative decoding pay, for two models that share a tokenizer.

`python benchmarks/decoding.py` asks qwen2.5-coder-1.5b the first tasks of the calibration set (splits
calibration and validation), for programs and for functions to write (HumanEval): by itself, with drafts of
qwen2.5-coder-0.5b, with drafts looked up in what was read (n-grams), and token by token from a product of
both models' distributions (weight of the larger .5 or .8, the 20 likeliest tokens of each). Prints JSON:
share of right answers, CPU seconds of a task, tokens written in a CPU second. One thread each.
"""

import argparse
import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xllamacpp

from manyminds import catalog
from manyminds.config import load
from manyminds.evals import packs
from manyminds.evals.questions import Graded
from manyminds.experts.asked import WAYS, Asked
from manyminds.types import Card, Message, Query, Samples, Sampling, Task, Usage
from manyminds.wire import request_body

LARGE, SMALL = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"
SPECULATION = xllamacpp.xllamacpp.common_speculative_type
TOP = 20
UNLIKELY = -12.0  # in nats, of a token that is not among the likeliest


class Model:
    """A model on one thread, in this process."""

    def __init__(self, home: Path, name: str, speculate: Callable[[Any], None] = lambda params: None) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path(home, name))
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 4096, 2, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.kv_unified, params.slot_prompt_similarity = True, 0.5
        params.warmup, params.fit_params, params.cache_ram_mib, params.verbosity = False, False, 0, -1
        speculate(params)
        self._server = xllamacpp.Server(params)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            found: dict[str, Any] = json.loads(reply.read())
        return found


def path(home: Path, name: str) -> Path:
    return catalog.path_of(home, catalog.find(name).files[0])


class Through:
    """An expert whose answers come from a function: of a chat request, to a text and its tokens."""

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[str, int]]) -> None:
        self.card = Card(LARGE, "local", model=LARGE, offers=frozenset({"samples", "grammar"}))
        self._answer = answer
        self.tokens = 0

    async def sample(self, query: Query, count: int) -> Samples:
        text, tokens = self._answer(json.loads(request_body(query, LARGE, whole=True)))
        self.tokens += tokens
        return Samples((text,), ("stop",), Usage(0, tokens))


def chat(model: Model) -> Callable[[dict[str, Any]], tuple[str, int]]:
    def answer(body: dict[str, Any]) -> tuple[str, int]:
        found = model.post("/v1/chat/completions", body)
        return found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"]

    return answer


def product(large: Model, small: Model, weight: float) -> Callable[[dict[str, Any]], tuple[str, int]]:
    """The likeliest token of p_large^weight p_small^(1 - weight), one after another."""

    def answer(body: dict[str, Any]) -> tuple[str, int]:
        prompt = large.post("/apply-template", {"messages": body["messages"]})["prompt"]
        read = large.post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})[
            "tokens"
        ]
        said: list[int] = []
        while len(said) < body["max_tokens"]:
            wish = {
                "prompt": read + said,
                "n_predict": 1,
                "n_probs": TOP,
                "temperature": 0,
                "cache_prompt": True,
            }
            seen = [
                model.post("/completion", wish)["completion_probabilities"][0] for model in (large, small)
            ]
            odds = [{top["id"]: top["logprob"] for top in one["top_logprobs"]} for one in seen]
            scores = {
                token: weight * odds[0].get(token, UNLIKELY) + (1 - weight) * odds[1].get(token, UNLIKELY)
                for token in odds[0] | odds[1]
            }
            best = max(scores, key=lambda token: (scores[token], -token))
            if best in (151643, 151645):  # <|endoftext|>, <|im_end|>
                break
            said.append(best)
        return large.post("/detokenize", {"tokens": said})["content"], len(said)

    return answer


def measure(answer: Callable[[dict[str, Any]], tuple[str, int]], tasks: list[Graded]) -> dict[str, float]:
    expert = Through(answer)
    asked = Asked(expert, WAYS["code"])  # type: ignore[arg-type]
    right = 0

    async def said(graded: Graded) -> str:
        query = Query((Message("user", graded.text),), sampling=Sampling(max_tokens=320), task=graded.task)
        if graded.task.kind == "text":
            query_of = Query(
                query.messages, sampling=Sampling(max_tokens=320, temperature=0.0), task=Task("text")
            )
            return (await expert.sample(query_of, 1)).texts[0]
        return "".join([chunk.text async for chunk in asked.stream(query)])

    asyncio.run(said(tasks[0]))  # reads the examples
    expert.tokens, began = 0, time.process_time()
    for graded in tasks:
        right += graded.right(asyncio.run(said(graded)), cut=False)
    spent = time.process_time() - began
    return {
        "right": right / len(tasks),
        "cpu_s_per_task": round(spent / len(tasks), 3),
        "tokens": expert.tokens,
        "tokens_per_cpu_s": round(expert.tokens / spent, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=24, help="of programs; a third as many functions")
    parser.add_argument("--only", default="", help="one of plain, draft, ngram, product")
    options = parser.parse_args()
    home = load(None, {}, {}).home
    learnt = [
        [graded for graded in packs.questions(name, home) if graded.question.split != "test" and kind(graded)]
        for name, kind in (
            ("procedural", lambda graded: graded.task.kind != "text"),
            ("human-eval", lambda graded: True),
        )
    ]
    step = max(1, len(learnt[0]) // options.tasks)
    sets = {
        "programs": learnt[0][::step][: options.tasks],
        "functions": learnt[1][: max(1, options.tasks // 3)],
    }

    def draft(params: Any) -> None:
        params.speculative.types = [SPECULATION.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        params.speculative.draft.mparams.path = str(path(home, SMALL))
        params.speculative.draft.n_max, params.speculative.draft.p_min = 4, 0.75
        params.speculative.draft.cpuparams.n_threads = params.speculative.draft.cpuparams_batch.n_threads = 1

    def ngram(params: Any) -> None:
        params.speculative.types = [SPECULATION.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        params.speculative.ngram_simple.size_n, params.speculative.ngram_simple.size_m = 3, 4

    found: dict[str, Any] = {}
    for name, speculate in (("plain", lambda params: None), ("draft", draft), ("ngram", ngram)):
        if options.only in ("", name):
            model = Model(home, LARGE, speculate)
            found[name] = {kind: measure(chat(model), tasks) for kind, tasks in sets.items()}
            print(json.dumps({name: found[name]}), flush=True)
            del model
    if options.only in ("", "product"):
        large, small = Model(home, LARGE), Model(home, SMALL)
        for weight in (0.5, 0.8):
            found = {kind: measure(product(large, small, weight), tasks) for kind, tasks in sets.items()}
            print(json.dumps({f"product {weight}": found}), flush=True)


if __name__ == "__main__":
    main()
