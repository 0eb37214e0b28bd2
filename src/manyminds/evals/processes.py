"""Work in processes of their own, as many at once as there are cores. Knows not what is worked on.

Ctrl-C is for whoever started them: they never hear of it, not while Python starts either.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any, TypeAlias

__all__ = ["Begin", "processes"]

Begin: TypeAlias = Callable[..., "Future[Any]"]
"""Begins a call: of a function of a module, with what can be pickled."""


@contextmanager
def processes() -> Iterator[Begin]:
    """Gives what begins calls. What still runs when an error or Ctrl-C leaves the block is ended at once.

    Where this process itself is killed, those that it started end, too. In the main thread only.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _follow)

    def begin(work: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        with _deaf():  # a process may be started here, and is born with what is blocked
            return pool.submit(work, *args)

    try:
        yield begin
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C waits until the block is left. Handled, since any thread may hear it; blocked, since that is
    what a process that is started here is born with.
    """
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    blocks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if blocks else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _follow() -> None:
    """In the process that was started: it ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end, daemon=True).start()


def _end() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
