"""A program that nobody trusts reaches nothing, takes little, and is right only where its answers are."""

import ast
import os
import select
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import sandbox
from manyminds.errors import DataError
from manyminds.sandbox.inside import show

TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"
RIGHT = "def square(x):\n    return x * x\n"


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner), st.sets(st.integers())
    ),
    max_leaves=10,
)


@given(VALUES)
def test_a_literal_equals_its_value(value: object) -> None:
    shown = show(value)
    assert "\n" not in shown
    assert ast.literal_eval(shown) == value


@pytest.mark.parametrize(
    "value", [float("nan"), object(), range(3), [1, iter("")]], ids=["nan", "object", "range", "iterator"]
)
def test_what_has_no_literal_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        show(value)


def passes(program: str, test: str = TEST, setting: str = "", **limits: float) -> bool:
    try:
        sandbox.need()
    except DataError as error:
        pytest.skip(f"no sandbox here: {error}")
    return sandbox.passes(program, setting, test, "square", **limits)  # type: ignore[arg-type]


def test_a_right_program_passes() -> None:
    assert passes(RIGHT)


def test_a_program_that_prints_a_hundred_megabytes_and_is_right_passes() -> None:
    assert passes("for _ in range(100):\n    print('x' * 1_000_000)\n" + RIGHT)


@pytest.mark.parametrize(
    "result",
    ["{1: 'a', 'b': [1.5, None]}", "(1,)", "set()", "{3, 4}", "float('-inf')", "b'x'", "'\\n\\u2028é'"],
)
def test_values_cross_as_they_are(result: str) -> None:
    test = f"def check(candidate):\n    assert candidate({result}) == {result}\n"
    assert passes("def square(x):\n    return x\n", test)


def test_a_dictionary_of_another_class_equals_a_plain_one() -> None:
    program = "from collections import Counter\ndef square(x):\n    return Counter(x)\n"
    assert passes(program, "def check(candidate):\n    assert candidate('aab') == {'a': 2, 'b': 1}\n")


def test_the_setting_is_there_for_the_test_alone() -> None:
    test = "def check(candidate):\n    assert candidate(2) == four()\n"
    assert passes(RIGHT, test, "def four():\n    return 4\n")
    assert not passes("def square(x):\n    return four()\n", test, "def four():\n    return 4\n")


WRONG = {
    "wrong answer": "def square(x):\n    return 2 * x\n",
    "no function": "x = 1\n",
    "not python": "def square(x) return x\n",
    "raises": "def square(x):\n    raise ValueError\n",
    "raises before": "1 / 0\n" + RIGHT,
    "exits with success": "import sys\nsys.exit(0)\n",
    "exits as a judge does": "import os\nos._exit(42)\n",
    "exits when called": "import os\ndef square(x):\n    os._exit(42)\n",
    "says that it passed": "print('ready'); print('passed'); print('42')\n",
    "writes to every file that is open": (
        "import os\nfor n in range(3, 16):\n    try:\n        os.write(n, b'5\\n' * 9)\n    except OSError:\n"
        "        pass\ndef square(x):\n    return 0\n"
    ),
    "equals everything": (
        "class Sly(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
        "    def __repr__(self):\n        return '4'\ndef square(x):\n    return Sly(0)\n"
    ),
    "patches what compares": (
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.repr = lambda x: '4'\n"
        "def square(x):\n    return None\n"
    ),
    "reads the test": (
        "import gc, sys\ndef square(x):\n    for some in (gc.get_objects(), sys.argv):\n"
        "        for one in some:\n            if isinstance(one, str) and 'candi' + 'date(2)' in one:\n"
        "                return x * x\n    return 0\n"
    ),
    "never ends": "while True:\n    pass\n",
    "never answers": "def square(x):\n    while True:\n        pass\n",
    "takes all memory": "def square(x):\n    return len(bytearray(4 << 30)) and x * x\n",
    "fills memory": "x = []\nwhile True:\n    x.append(' ' * 1_000_000)\n",
    "answers without end": "import os\nwhile True:\n    os.write(4, b'4' * 65536)\n",
    "nests deep": "def square(x):\n    y = []\n    for _ in range(100_000):\n        y = [y]\n    return y\n",
    "is its own member": "def square(x):\n    y = []\n    y.append(y)\n    return y\n",
    "forks": "import os\nwhile True:\n    os.fork()\n",
    "kills all": "import os\nos.kill(-1, 9)\ndef square(x):\n    return 0\n",
    "has a null": RIGHT + "# \0",
    "is huge": RIGHT + "#" * 1_000_000,
    "is no Unicode": RIGHT + "x = '\ud800'\ndef square(x):\n    return 0\n",
}


@pytest.mark.parametrize("program", WRONG.values(), ids=WRONG)
def test_what_is_not_right_does_not_pass(program: str) -> None:
    assert not passes(program, cpu_s=1)


FORBIDDEN = {
    "fork": "os.fork()",
    "a thread": "__import__('threading').Thread(target=print).start()",
    "a program": "os.execv('/usr/bin/env', ['env'])",
    "a child program": "__import__('subprocess').run(['/usr/bin/env'])",
    "a socket": "__import__('socket').socket()",
    "a file in /tmp": "open('/tmp/x', 'w')",
    "a file in the root": "open('/x', 'w')",
    "a file of the system": "open('/usr/lib/x', 'w')",
    "a folder": "os.mkdir('/tmp/x')",
    "a device": "open('/dev/shm/x', 'w')",
    "memory that is a file": "os.write(os.memfd_create('x'), b'x')",
    "processes": "os.listdir('/proc')",
    "a password": "open('/etc/passwd')",
    "more time": "__import__('resource').setrlimit(0, (99, 99))",
}


@pytest.mark.parametrize("act", FORBIDDEN.values(), ids=FORBIDDEN)
def test_nothing_else_can_be_had(act: str) -> None:
    tried = f"    try:\n        {act}\n    except Exception:\n        return 'refused'\n"
    program = f"import os\ndef square(x):\n{tried}"
    assert passes(program, "def check(candidate):\n    assert candidate(1) == 'refused'\n")


@pytest.mark.parametrize("where", [Path.home(), Path(__file__)], ids=["home", "project"])
def test_nothing_of_the_user_can_be_seen(where: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    program = (
        "import os\ndef square(where):\n    try:\n        return sorted(os.listdir(where))\n"
        "    except NotADirectoryError:\n        return ['file']\n    except OSError:\n        return []\n"
    )
    below = os.path.relpath(os.path.realpath(sys.base_prefix), Path.home()).split(os.sep)[0]
    for place in (where, secret):
        test = f"def check(candidate):\n    assert set(candidate({str(place)!r})) <= {{{below!r}}}\n"
        assert passes(program, test)


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYMINDS_SECRET", "hunter2")
    program = "import os\ndef square(x):\n    return 'MANYMINDS_SECRET' in os.environ\n"
    assert passes(program, "def check(candidate):\n    assert candidate(1) is False\n")


def test_nothing_outlives_the_call() -> None:
    marker = "outlives_" + os.urandom(8).hex()
    assert not passes(f"import time  # {marker}\ntime.sleep(600)\n", wall_s=1.0)
    for pid in _processes(marker):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        gone = select.poll()
        gone.register(descriptor, select.POLLIN)
        assert gone.poll(10_000), "the sandbox is still there"
        os.close(descriptor)


def _processes(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_no_file_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        passes(RIGHT)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_bubblewrap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="apt-get install bubblewrap"):
        sandbox.need.__wrapped__()


def test_where_namespaces_are_off_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'No permissions to create a new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"No permissions .* user namespaces"):
        sandbox.need.__wrapped__()


# --- what a program comes to -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("6 * 7", 42),
        ("eggs = 12 * 3\neggs - 7", 29),
        ("[1, 'two', (3.5, None)]", [1, "two", (3.5, None)]),
        ("print('noise')\nprint('said', 'more')", "said"),
        ("words = ['b', 'a']\nwords.sort()", ["a", "b"]),
        ("x = 4", 4),
        ("x = 4\nx += 3", 7),
        ("x: int = 4", 4),
        ("x, y = 1, 2", None),
        ("def solve():\n    return 6 * 7", 42),
        ("def solve(x):\n    return x", None),
        ("import datetime\ndatetime.date(2024, 2, 29).strftime('%A')", "Thursday"),
        ("8 * 6 = 50", 48),
        ("x = 8 * 6 = 50", 48),
        ("8 * = 6", None),
        ("x = 4\nx is four", None),
        ("if True:\n    7", None),
        ("True", True),
        ("object()", None),
        ("raise ValueError", None),
        ("this is no program", None),
        ("raise SystemExit(0)", None),
        ("'x' * 10**6", None),
        ("'\\n'.join('abc')", "a\nb\nc"),
        ("+" * 50_000 + "1", None),
        ("#", None),
        ("", None),
        ("\0", None),
        ("1\udc80", None),
    ],
)
def test_a_program_comes_to_its_last_line(program: str, value: object) -> None:
    assert sandbox.value_of(program) == value


def test_a_program_without_end_has_no_value() -> None:
    assert sandbox.value_of("while True: pass", cpu_s=1, wall_s=20.0) is None
    assert sandbox.value_of("import time\ntime.sleep(60)", wall_s=0.5) is None


def test_output_without_end_has_no_value() -> None:
    program = """
import os
while True:
    for file in range(3, 16):
        try:
            os.write(file, b"x" * 65536)
        except OSError:
            pass
"""
    assert sandbox.value_of(program, cpu_s=2, wall_s=20.0) is None
