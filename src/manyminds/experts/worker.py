"""The child process of a local model: llama.cpp's HTTP server on a random loopback port, and nothing else.

Run as `python -m manyminds.experts.worker` by `experts.local`. Reads one line of JSON from standard input
(the key too, so that it shows in no process list), writes one line of JSON with the address, and lives until
standard input closes: when its parent dies, however it dies, so does the child.
"""

import json
import os
import resource
import sys
from contextlib import suppress
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Serves one model until standard input closes. Exit 1 with one line on standard error otherwise."""
    wish = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if wish["memory_bytes"]:  # a runaway allocation ends this process, not the machine
        resource.setrlimit(resource.RLIMIT_DATA, (wish["memory_bytes"], wish["memory_bytes"]))
    # Native code writes to file descriptor 1 as it likes: keep our one line apart from it.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with suppress(OSError), open("/proc/self/comm", "w") as shown:  # what `top` calls this process
        shown.write(wish["name"])
    try:
        server = _serve(wish)
    except Exception as error:  # whatever native code reports ends here, as one line
        sys.exit(f"{error}")
    try:
        print(json.dumps({"url": server.listening_address}), file=out, flush=True)
        sys.stdin.read()
    finally:  # at once, also where the parent is gone already: the server's own shutdown waits for answers
        os._exit(0)


def _serve(wish: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = wish["path"]
    params.model_alias = {wish["name"]}
    params.api_keys = [wish["key"]]
    params.n_ctx = wish["context_tokens"]
    params.n_parallel = wish["slots"]
    params.kv_unified = True  # each may use the whole context, and none takes memory of its own
    params.slot_prompt_similarity = 0.5  # a question that shares only a chat's opening leaves examples cached
    params.swa_full = True  # as large as with a window for each slot, and prompts stay cached without copies
    params.n_ctx_checkpoints = 0
    params.n_gpu_layers = 0
    params.load_mode = 0  # LLAMA_LOAD_MODE_NONE: a mapped file stays in memory beside its repacked weights
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wish["threads"]
    params.n_predict = wish["max_tokens"]
    params.n_batch = params.n_ubatch = 64  # a prompt whose client is gone is dropped between batches
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0  # prompt caches of past conversations would grow past the memory limit
    params.ui = False
    params.verbosity = -1
    params.antiprompt = wish["stop"]
    if wish["chat_template"]:
        params.chat_template = wish["chat_template"]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
