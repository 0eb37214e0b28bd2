"""Runs a program that nobody trusts under bubblewrap, alone or against a test. Knows no model.

Two sandboxes: one for the program, one for the test, with two pipes between them. Neither has a network, a
home, a file that it could write, or more time and memory than it is given; nothing in them outlives the call.
"""

import ast
import hashlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import IO, Any, Final

from manyminds.errors import DataError
from manyminds.sandbox import inside

__all__ = ["fingerprint", "need", "passes", "value_of"]

_CPU_S: Final = 5  # of the program, and of the test
_WALL_S: Final = 30.0
_RESULT_BYTES: Final = 100_000
_PROGRAM_BYTES: Final = 100_000  # the kernel takes no longer argument than 128 KiB
_SYSTEM: Final = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
_INSTALL: Final = "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap)"


@cache
def need() -> None:
    """Raises: DataError, which says what to do, where programs cannot be run here."""
    if not sys.platform.startswith("linux"):
        raise DataError("Programs that models write are run under bubblewrap, which needs Linux.")
    if shutil.which("bwrap") is None:
        raise DataError(f"Programs that models write are run under bubblewrap: {_INSTALL}.")
    command = [*_walls(), *_python(), "import resource, ctypes"]
    try:
        tried = subprocess.run(  # noqa: S603
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_WALL_S, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"bubblewrap cannot be run: {error}") from None
    if tried.returncode:
        said = " ".join(tried.stderr.decode(errors="replace").split())
        raise DataError(
            f"bubblewrap cannot run Python here ({said:.300}): allow user namespaces"
            " (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0; in a container,"
            " a profile that permits them), or leave the code tasks out."
        )


@cache
def fingerprint() -> str:
    """Another one where a program may come to be judged otherwise."""
    parts = f"{_inside()} {_CPU_S} {_WALL_S} {sys.version_info[:2]}"
    return hashlib.sha256(parts.encode()).hexdigest()


def passes(
    program: str, setting: str, test: str, name: str, *, cpu_s: int = _CPU_S, wall_s: float = _WALL_S
) -> bool:
    """Whether the function `name` of the program keeps the test: a `check(candidate)` in Python.

    `setting` comes before the test and is trusted like it. Takes a tenth of a second, and at most `wall_s`.
    Safe in any thread.

    Raises: DataError, where programs cannot be run here.
    """
    need()
    if (plain := _plain(program)) is None:
        return False
    with _running("solve", plain, name, str(cpu_s), stdin=subprocess.PIPE) as solver:
        assert solver.stdin is not None
        assert solver.stdout is not None
        ends = {"stdin": solver.stdout, "stdout": solver.stdin}
        with _running("judge", setting, test, name, str(cpu_s), **ends) as judge:
            solver.stdin.close()
            solver.stdout.close()
            try:
                verdict = judge.wait(wall_s)
            except subprocess.TimeoutExpired:
                verdict = None
    if verdict not in (inside.PASSED, inside.FAILED, None):
        raise DataError(f"A sandbox could not be started, or was killed ({verdict}): run this again.")
    return verdict == inside.PASSED


def value_of(program: str, *, cpu_s: int = _CPU_S, wall_s: float = _WALL_S) -> Any:
    """What the last statement of the program comes to, as in a notebook; a function at its end is called.

    None also where it fails, or comes to anything else than numbers, texts, truth values and what holds
    them. Takes a tenth of a second, and at most `wall_s`. Safe in any thread.

    Raises: DataError, where programs cannot be run here.
    """
    need()
    if (plain := _plain(program)) is None:
        return None
    with _running("value", plain, str(cpu_s)) as process:
        assert process.stdout is not None
        said = _read(process.stdout.fileno(), wall_s)
    try:
        return ast.literal_eval(said.decode())
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # as where it failed, and said nothing
        return None


def _read(pipe: int, wall_s: float) -> bytes:
    """All that comes until the pipe ends; nothing, where that is too late or too much."""
    until_s, said = time.monotonic() + wall_s, b""
    while len(said) <= _RESULT_BYTES:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
            break
        if not (more := os.read(pipe, 65_536)):
            return said
        said += more
    return b""


def _plain(program: str) -> str | None:
    """As it can be given to a process; None where it cannot."""
    program = program.encode("utf-8", "replace").decode()
    return None if "\0" in program or len(program.encode()) > _PROGRAM_BYTES else program


@contextmanager
def _running(
    *arguments: str,
    stdin: "int | IO[bytes]" = subprocess.DEVNULL,
    stdout: "int | IO[bytes]" = subprocess.PIPE,
) -> "Iterator[subprocess.Popen[bytes]]":
    """A sandbox with one side in it, which ends with the block."""
    command = [*_walls(), *_python(), _inside(), *arguments]
    with subprocess.Popen(  # noqa: S603
        command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, bufsize=0, env={}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@cache
def _inside() -> str:
    """The program of either side, which is run as text: the package itself cannot be seen from there."""
    return resources.files(__package__).joinpath("inside.py").read_text(encoding="utf-8")


def _walls() -> list[str]:
    """A sandbox that shows the system and Python, to read, and that ends when whoever started it does."""
    base = os.path.realpath(sys.base_prefix)
    seen = [*_SYSTEM, *([] if base.startswith("/usr") else [base])]
    command = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--uid",
        "65534",
        "--gid",
        "65534",
        "--cap-drop",
        "ALL",
    ]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--setenv", "PYTHONHASHSEED", "0"]
    for path in seen:
        command += ["--ro-bind-try", path, path]
    return [*command, "--dir", "/tmp", "--remount-ro", "/", "--chdir", "/"]  # noqa: S108


def _python() -> list[str]:
    """Without site-packages, and with nothing taken from the folder that it runs in."""
    return [os.path.realpath(sys.executable), "-s", "-P", "-S", "-B", "-X", "utf8", "-c"]
