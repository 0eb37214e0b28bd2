"""What runs within the sandbox: a program that nobody trusts, or the test of it. Imports nothing of ours.

`python -c THIS value PROGRAM CPU_S` says what a program comes to. `python -c THIS solve PROGRAM NAME CPU_S`
answers calls of its function NAME, `python -c THIS judge SETTING TEST NAME CPU_S` makes them. These two share
two pipes and nothing else: a program cannot reach the test that judges it, whatever it does to its own
process. Calls and results travel as literals, a line each.
"""

import ast
import math
import os
import platform
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

__all__ = ["FAILED", "PASSED", "UNREADY", "confine", "judge", "show", "solve", "value"]

PASSED = 42
"""How the judge exits where the test holds."""
FAILED = 43
UNREADY = 44
"""Where the program's sandbox never came up."""

_MEMORY_BYTES = 512 << 20
_LINE_BYTES = 1 << 20
_READY, _RAISED = b"ready\n", b"!\n"
_DEPTH = 100
# clone, fork, vfork, execve, ptrace, shmget, unshare, setns, execveat, clone3, socket; by architecture.
_DENIED = {
    "x86_64": (0xC000003E, (56, 57, 58, 59, 101, 29, 272, 308, 322, 435, 41)),
    "aarch64": (0xC00000B7, (220, 221, 117, 194, 97, 268, 281, 435, 198)),
}


def confine(cpu_s: int) -> None:
    """No more than this much from here on: time, memory, files, and no process beside this one."""
    import resource

    for limit, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    _deny_calls()


def _deny_calls() -> None:
    """By seccomp, since limits on processes do not bind root. Where the machine is unknown, limits must do.

    A filter is an array of (code, jump if true, jump if false, value): load the architecture, compare; load
    the number, compare with each; allow. See linux/filter.h and linux/seccomp.h.
    """
    import ctypes
    import struct

    if platform.machine() not in _DENIED:
        return
    architecture, numbers = _DENIED[platform.machine()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000  # refuse: EPERM
    rules = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    rules += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]  # x32, whose numbers are others
    for number in numbers:
        rules += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    rules.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    no_new_privileges, set_seccomp, filtered = 38, 22, 2
    if prctl(no_new_privileges, 1, None, 0, 0) or prctl(set_seccomp, filtered, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def show(value: Any, depth: int = 0) -> str:
    """A literal that equals the value, in one line. Raises: TypeError, where there is none; ValueError."""
    if depth > _DEPTH:
        raise ValueError("too deep")
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | str | bytes):
        plain = int if isinstance(value, int) else str if isinstance(value, str) else bytes
        return repr(plain(value))  # type: ignore[arg-type]
    if isinstance(value, float):
        if math.isnan(value):
            raise TypeError("not a number")
        return repr(float(value)) if math.isfinite(value) else "1e999" if value > 0 else "-1e999"
    if isinstance(value, dict):
        pairs = (f"{show(key, depth + 1)}: {show(of, depth + 1)}" for key, of in value.items())
        return f"{{{', '.join(pairs)}}}"
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError(type(value).__name__)
    parts = ", ".join(show(part, depth + 1) for part in value)
    if isinstance(value, list):
        return f"[{parts}]"
    if isinstance(value, tuple):
        return f"({parts}{',' if len(value) == 1 else ''})"
    return f"{{{parts}}}" if value else "set()"


def solve(program: str, name: str, calls: BinaryIO, results: BinaryIO) -> None:
    """Runs the program, then answers calls of its function until there are no more."""
    results.write(_READY)
    results.flush()
    space: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, "program", "exec"), space)  # noqa: S102
    for line in calls:
        try:
            result = show(space[name](*ast.literal_eval(line.decode()))).encode() + b"\n"
        except Exception:  # whatever it raises is a wrong answer
            result = _RAISED
        results.write(result)
        results.flush()


def value(program: str) -> Any:
    """What the last statement of a program comes to, as in a notebook. Raises: whatever it raises."""
    tree, space = _parsed(program), {"__name__": "program"}
    last = tree.body.pop()

    def run(*statements: ast.stmt) -> None:
        module = ast.Module([*tree.body, *statements], [])
        exec(compile(module, "program", "exec"), space)  # noqa: S102

    def found(expression: ast.expr) -> Any:
        return eval(compile(ast.Expression(expression), "program", "eval"), space)  # noqa: S307

    match last:
        case ast.Expr(ast.Call(ast.Name("print"), [asked, *_])) | ast.Expr(asked):
            run()
            result = found(asked)
            if result is None and isinstance(asked, ast.Call) and isinstance(asked.func, ast.Attribute):
                return found(asked.func.value)  # what changes in place gives nothing: `words.sort()`
            return result
        case ast.Assign([ast.Name(name)]) | ast.AugAssign(ast.Name(name)) | ast.AnnAssign(ast.Name(name)):
            run(last)
            return space[name]
        case ast.FunctionDef(name):
            run(last)
            return space[name]()  # type: ignore[operator]
        case _:
            run(last)
            return None


def _parsed(program: str) -> ast.Module:
    """Models add what they believe the result to be, "2 + 2 = 5": that is cut off. Raises: SyntaxError."""
    try:
        tree = ast.parse(program)
    except SyntaxError:
        before, _, last = program.rstrip().rpartition("\n")
        if "=" not in last:
            raise
        tree = ast.parse(f"{before}\n{last.rpartition('=')[0]}")
    if not tree.body:
        raise SyntaxError("there is no statement")
    return tree


def judge(setting: str, test: str, name: str, results: BinaryIO, calls: BinaryIO) -> int:
    """How to exit: whether the test holds of the function at the other end. It runs after `setting`."""
    if results.readline(len(_READY)) != _READY:
        return UNREADY

    def candidate(*arguments: Any) -> Any:
        calls.write(show(arguments).encode() + b"\n")
        calls.flush()
        line = results.readline(_LINE_BYTES)
        if line == _RAISED or not line.endswith(b"\n"):
            raise ValueError("no result")
        return ast.literal_eval(line.decode())

    import random

    random.seed(0)
    try:
        space: dict[str, Any] = {"__name__": "test"}
        exec(compile(f"{setting}\n\n{test}", "test", "exec"), space)  # noqa: S102
        check: Callable[[Any], None] = space["check"]
        space[name] = candidate
        check(candidate)
    except BaseException:
        return FAILED
    return PASSED


def _main(role: str, *arguments: str) -> NoReturn:
    *texts, cpu_s = arguments
    come, go = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for standard in (0, 1):  # what is printed or read goes nowhere
        os.dup2(2, standard)
    confine(int(cpu_s))
    code = 0
    if role == "judge":
        code = judge(texts[0], texts[1], texts[2], come, go)
    elif role == "solve":
        solve(texts[0], texts[1], come, go)
    else:
        go.write(show(value(texts[0])).encode())
        go.flush()
    os._exit(code)


if __name__ == "__main__":
    _main(*sys.argv[1:])
