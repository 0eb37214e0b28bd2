"""A stand-in for a container runtime, for tests: a root file system of its own, namespaces, no privileges.

Linux only, and root's: mounts, network and processes are those of new namespaces, whose loopback interface
reaches nobody else. The Python of `/usr/local` is that which runs the tests, as in Docker's official images.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import wait_until

__all__ = ["Box", "Rules", "Running", "need_namespaces"]

_SHARED = ("bin", "sbin", "lib", "lib64", "lib32", "usr", "dev")
_ETC = (
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "hosts",
    "passwd",
    "group",
    "login.defs",
    "pam.d",
    "security",
)
_PACKAGES = Path(pytest.__file__).parents[1]
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_MDWE = 38, 24, 65  # of linux/prctl.h
_EPERM, _ALLOW = 0x00050001, 0x7FFF0000  # of seccomp.h: fail with errno 1; let through
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_EQUAL_TO = 4


def need_namespaces() -> None:
    """Skips the test where this machine or this user cannot make a root file system of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, to make namespaces")
    if sys.base_prefix in ("/usr", "/usr/local"):
        pytest.skip("needs a Python in a folder of its own, which takes the place of /usr/local")
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"cannot make namespaces: {tried.stderr.decode(errors='replace').strip()}")


@dataclass(frozen=True)
class Rules:
    """What a process may do. `calls` are system calls by name, `families` those of sockets; None is all."""

    uid: int = 0
    read_only: bool = False
    no_new_privileges: bool = False
    no_new_code: bool = False  # memory that was written is never executed: prctl's PR_SET_MDWE
    calls: Sequence[str] | None = None
    families: Sequence[int] | None = None
    first: bool = False  # is process 1 itself, as in a container; else that is one that only waits for it


@dataclass
class Running:
    """A process in a box. `pid` is this machine's; within the box it is `inside`."""

    pid: int
    process: "subprocess.Popen[bytes]"
    rules: Rules
    env: Mapping[str, str]
    log: Path

    @property
    def inside(self) -> int:
        return 1 if self.rules.first else 2

    def run(self, *command: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """One more process beside it, as `docker exec` makes them."""
        uid = str(self.rules.uid)
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--root"]
        enter += [f"--wd=/proc/{self.pid}/cwd", "--setuid", uid, "--setgid", uid, "--"]
        return subprocess.run(
            [*enter, *command], capture_output=True, env={**self.env, **env}, text=True, timeout=60
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, once it has been sent that signal."""
        os.kill(self.pid, number)
        return self.process.wait(timeout=30)


@dataclass
class Box:
    """A root file system in the folder `root`; `mounts` are folders of this machine by their place in it.

    Those are writable in a box that is not.
    """

    root: Path
    mounts: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.root.chmod(0o755)
        for name in (*_SHARED, "proc", "run", "tmp", "deps", "etc", "opt"):
            host, place = Path("/", name), self.root / name
            if host.is_symlink():
                place.symlink_to(os.readlink(host))
            elif host.exists() or name == "deps":
                place.mkdir(parents=True)
        for name in _ETC:
            host, place = Path("/etc", name), self.root / "etc" / name
            if host.is_dir():
                shutil.copytree(host, place)
            elif host.exists():
                shutil.copy(host, place)

    def run(
        self, *command: str, env: Mapping[str, str], cwd: str = "/", rules: Rules | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end."""
        wish = self._wish(command, env, cwd, rules or Rules())
        return subprocess.run(wish, capture_output=True, text=True, timeout=300, env=_own(env))

    @contextmanager
    def running(
        self, *command: str, env: Mapping[str, str], cwd: str, rules: Rules, log: Path
    ) -> Iterator[Running]:
        """Runs a command until the block ends; what it says is in `log`."""
        with log.open("wb") as talk:
            process = subprocess.Popen(
                self._wish(command, env, cwd, rules), stdout=talk, stderr=talk, env=_own(env)
            )
        try:
            assert wait_until(lambda: process.poll() is not None or _descendant(process.pid, rules))
            assert process.poll() is None, log.read_text()
            yield Running(_descendant(process.pid, rules), process, rules, env, log)
        finally:
            if process.poll() is None:
                process.kill()  # and with it process 1, and with that all of its namespace
                process.wait(timeout=20)

    def _wish(self, command: Sequence[str], env: Mapping[str, str], cwd: str, rules: Rules) -> list[str]:
        wish = {
            "root": str(self.root),
            "mounts": {place: str(host) for place, host in self.mounts.items()},
            "command": command,
            "env": dict(env),
            "cwd": cwd,
            "rules": vars(rules),
        }
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        return [*apart, sys.executable, "-m", "tests.container", json.dumps(wish)]


def _own(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of this file as a program."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}


def _descendant(pid: int, rules: Rules) -> int:
    """The process of the command, as a child of `unshare` or of its child; 0 as long as there is none."""
    for _ in range(1 if rules.first else 2):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
        pid = int(children[0]) if children else 0
    return pid


# --- inside: from here on as process 1 of new namespaces --------------------------------------------


def _main(wish: dict[str, Any]) -> None:
    """Makes the file system, gives up what is not allowed, and becomes the command."""
    rules, root = Rules(**wish["rules"]), Path(wish["root"])
    if not rules.first and (pid := os.fork()):
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(ended if ended >= 0 else 128 - ended)
    _raise_loopback()
    _mount(root, wish["mounts"], read_only=rules.read_only)
    libc, seccomp = ctypes.CDLL(None, use_errno=True), None
    if rules.calls is not None:
        seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    os.chroot(root)
    os.chdir(wish["cwd"])
    if rules.uid:
        for capability in range(41):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setgid(rules.uid)
        os.setuid(rules.uid)
    if rules.no_new_privileges:
        assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if rules.no_new_code:
        assert libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0) == 0, "this kernel has no PR_SET_MDWE"
    if seccomp is not None:
        _filter(seccomp, rules)
    os.execvpe(wish["command"][0], wish["command"], wish["env"])


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        name, flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", name, flags | _IFF_UP))


def _mount(root: Path, mounts: Mapping[str, str], *, read_only: bool) -> None:
    _do("--bind", str(root), str(root))
    for name in _SHARED:
        if (root / name).is_dir() and not (root / name).is_symlink():
            _do("--rbind" if name == "dev" else "--bind", f"/{name}", f"{root}/{name}")
    _do("--bind", sys.base_prefix, f"{root}/usr/local")
    _do("--bind", str(_PACKAGES), f"{root}/deps")
    for place in ("usr", "usr/local", "deps"):
        _do("-o", "remount,bind,ro", f"{root}/{place}")
    _do("-t", "proc", "proc", f"{root}/proc")
    for place, host in mounts.items():
        _do("--bind", host, f"{root}/{place.strip('/')}")
    if not (root / "etc/ld.so.cache").exists():  # where /usr/local has its own shared library of Python
        with (root / "etc/ld.so.conf").open("a") as more:
            more.write("\n/usr/local/lib\n")
        subprocess.run(["ldconfig", "-r", str(root)], check=True)
    if read_only:
        _do("-o", "remount,bind,ro", str(root))


def _do(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _filter(seccomp: ctypes.CDLL, rules: Rules) -> None:
    """Only these system calls, and sockets of these families, from here on; others fail with EPERM."""
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_EPERM)))
    for name in rules.calls or ():
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if name == "socket" and rules.families is not None:
            for family in rules.families:
                compared = _Compared(0, _EQUAL_TO, family, 0)
                added = (context, ctypes.c_uint32(_ALLOW), number, 1, ctypes.byref(compared))
                assert seccomp.seccomp_rule_add_array(*added) == 0
        elif number >= 0:  # others are of other machines
            assert seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 0, None) == 0
    assert seccomp.seccomp_load(context) == 0


class _Compared(ctypes.Structure):
    """seccomp.h's `scmp_arg_cmp`."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
