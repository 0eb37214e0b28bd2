"""A local model behind one OpenAI-compatible URL, in as many replicas as Ray Serve is told to run.

Each replica is a process in which llama.cpp serves the model. Requests pass through as they are, and so do
answers, whole or streamed, and errors. docs/cluster.md says how to run it: with `ray[serve]` and xllamacpp.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import xllamacpp
from pydantic import BaseModel
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse


class Settings(BaseModel):
    """What stands under `args` in the configuration."""

    path: str  # of a GGUF file, on every machine that may have a replica
    context_tokens: int = 4096  # which all questions at once share
    at_once: int = 4  # questions that a replica answers side by side
    threads: int = 1


class Model:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = settings.path
        params.model_alias = {Path(settings.path).stem}
        params.n_ctx = settings.context_tokens
        params.n_parallel = settings.at_once
        params.kv_unified = True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
        params.n_gpu_layers = 0
        params.ui = False
        self._llama = xllamacpp.Server(params)  # listens on a loopback port of its own choice
        self._client = aiohttp.ClientSession(self._llama.listening_address)

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        headers = {"content-type": "application/json"}
        reply = await self._client.request(request.method, request.url.path, data=body, headers=headers)
        kind = {"content-type": reply.headers["content-type"]}
        return StreamingResponse(_pieces(reply), reply.status, kind)


async def _pieces(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Its body, as it comes. Who leaves ends llama.cpp's work on it."""
    async with reply:
        async for piece in reply.content.iter_any():
            yield piece


def app(settings: Settings) -> Any:
    """The application that the configuration names."""
    return serve.deployment(Model).bind(settings)
