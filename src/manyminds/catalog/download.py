"""One URL to one verified file: resumable, bounded, patient once bytes flow. Knows no catalogue."""

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from manyminds.errors import DownloadError, HashMismatchError

if TYPE_CHECKING:  # whoever only looks at what is here, such as a node, starts a quarter of a second sooner
    import aiohttp

__all__ = ["digest", "is_whole", "obtain", "off_loop", "open_session"]

_T = TypeVar("_T")
_BLOCK_BYTES = 1 << 20
_CONNECT_S = 5.0
_STALLED_S = 30.0
_PATIENCE = 8  # failures after which a download that had begun gives up
_REDIRECTS = 10
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class _CutError(Exception):
    """The server failed in a way that may pass."""


def open_session() -> "aiohttp.ClientSession":
    """A session with the limits of downloads; proxies come from the environment."""
    import aiohttp

    limits = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=_STALLED_S)
    return aiohttp.ClientSession(
        timeout=limits, trust_env=True, auto_decompress=False, read_bufsize=_BLOCK_BYTES // 4
    )


async def obtain(
    session: "aiohttp.ClientSession",
    url: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    label: str,
    moved: Callable[[int], None],
) -> None:
    """Downloads `url` to `path`, going on from `path`.part where an earlier run left one.

    Never writes more than `size` bytes. `moved` gets every change of the bytes at hand, also downwards.
    Cancelled or failing, it leaves at most the `.part`.

    Raises:
        DownloadError: The source cannot be reached, is cut too often, or serves something else.
        HashMismatchError: All bytes came, and they are not those promised; they are deleted.
        OSError: The disk failed.
    """
    part = path.with_name(path.name + ".part")
    for resumed in (part.exists(), False):
        await _Transfer(session, url, part, size, label, moved).run()
        got = await digest(part)
        if got == sha256:
            part.replace(path)
            return
        part.unlink()
        moved(-size)
        if not resumed:  # else the fault may be in the old bytes: once more, from the start
            break
    raise HashMismatchError(f"{label}: its sha256 is {got}, expected is {sha256}; it is deleted")


async def digest(path: Path) -> str:
    """The sha256 of a file, read outside the event loop."""

    def work(stop: threading.Event) -> str:
        state = hashlib.sha256()
        with path.open("rb") as file:
            while not stop.is_set() and (block := file.read(_BLOCK_BYTES)):
                state.update(block)
        return state.hexdigest()

    return await off_loop(work)


async def is_whole(path: Path, size: int, sha256: str) -> bool:
    """Whether the file is there with that size and hash. Raises nothing."""
    try:
        return _size_of(path) == size and await digest(path) == sha256
    except OSError:
        return False


async def off_loop(work: Callable[[threading.Event], _T]) -> _T:
    """Runs `work` in a thread. Cancelled, it sets the event and waits until `work` has seen it."""
    stop = threading.Event()
    job = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        stop.set()
        with suppress(Exception):  # what cancelled work says of itself interests nobody
            await job
        raise


class _Transfer:
    """The bytes of `url` into `part`, from where it ends."""

    def __init__(
        self,
        session: "aiohttp.ClientSession",
        url: str,
        part: Path,
        size: int,
        label: str,
        moved: Callable[[int], None],
    ) -> None:
        self._session, self._url, self._part, self._size = session, url, part, size
        self._label, self._moved = label, moved
        self._have = part.stat().st_size if part.exists() else 0
        self._etag = ""
        self._begun = False  # bytes came in this run

    async def run(self) -> None:
        import aiohttp

        if self._have > self._size:
            self._part.unlink()
            self._have = 0
        self._moved(self._have)
        failures = 0
        while self._have < self._size:
            try:
                await self._attempt()
            except (_CutError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                failures += 1
                # A source that never answered is left at once: the next one may be better.
                if not self._begun or failures >= _PATIENCE:
                    reason = str(error) or type(error).__name__
                    raise DownloadError(f"{self._label}: {reason}") from error
                await asyncio.sleep(min(0.1 * 2**failures, 8.0))

    async def _attempt(self) -> None:
        headers = {"Accept-Encoding": "identity"}
        if self._have:
            headers["Range"] = f"bytes={self._have}-"
            if self._etag:
                headers["If-Range"] = self._etag
        async with _get(self._session, self._url, headers) as response:
            if self._have and not self._continues(response):
                self._rewind()
                if response.status != 200:
                    return
            self._check(response)
            etag = response.headers.get("ETag", "")
            self._etag = "" if etag.startswith("W/") else etag  # a weak one may not guard a range
            with _appending(self._part) as file:
                async for block in response.content.iter_chunked(_BLOCK_BYTES):
                    self._take(file, block)
        if self._have < self._size:
            raise _CutError(f"ended after {self._have:,} of {self._size:,} bytes")

    def _continues(self, response: "aiohttp.ClientResponse") -> bool:
        """Whether what we have stays of use: not where ranges are unknown or the file has changed."""
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == 206:
            return found is not None and int(found[1]) == self._have
        return response.status not in (200, 416)

    def _check(self, response: "aiohttp.ClientResponse") -> None:
        status = response.status
        if status in (408, 429) or status >= 500:
            raise _CutError(f"HTTP {status}")
        if status not in (200, 206):
            raise DownloadError(f"{self._label}: HTTP {status}")
        total = response.headers.get("Content-Length", "*")
        if status == 206:
            total = response.headers.get("Content-Range", "/*").rpartition("/")[2]
        if total not in ("*", str(self._size)):
            raise DownloadError(f"{self._label}: serves {total[:20]} bytes, expected are {self._size}")

    def _take(self, file: BinaryIO, block: bytes) -> None:
        if self._have + len(block) > self._size:
            raise DownloadError(f"{self._label}: sends more than the {self._size} bytes expected")
        file.write(block)
        file.flush()  # what was counted survives a kill
        self._have += len(block)
        self._begun = True
        self._moved(len(block))

    def _rewind(self) -> None:
        self._part.unlink(missing_ok=True)
        self._moved(-self._have)
        self._have, self._etag = 0, ""


def _size_of(path: Path) -> int:
    return path.stat().st_size


def _appending(path: Path) -> BinaryIO:
    return path.open("ab")


@asynccontextmanager
async def _get(
    session: "aiohttp.ClientSession", url: str, headers: dict[str, str]
) -> AsyncGenerator["aiohttp.ClientResponse", None]:
    """A GET that follows redirects, yet never from https to anything else."""
    for _ in range(_REDIRECTS):
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status not in (301, 302, 303, 307, 308):
                yield response
                return
            there = urljoin(url, response.headers.get("Location", ""))
        if urlsplit(there).scheme not in ("https", urlsplit(url).scheme):
            raise _CutError(f"redirects to {there[:100]}, which is not https")
        url = there
    raise _CutError(f"redirects more than {_REDIRECTS} times")
