"""How the code reads, as far as a machine can see it. The documents are in test_docs.py."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 600, 80

# In two parts, so that this file does not hold what it forbids.
FORBIDDEN = [
    "/wo" + "rk/",
    "/ro" + "ot/",
    "/ho" + "me/",
    "/tmp/" + "lab",
    "pypi" + ".org",
    "python" + "hosted",
    "npm" + "js.org",
    "deb." + "debian.org",
]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- names -----------------------------------------------------------------------------------------


def exported(module: ast.Module) -> list[str] | None:
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            names: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return names
    return None


def registered(node: ast.AST) -> bool:
    """Decorated as a subcommand, which is reached through its group: `@experts.command("list")`."""
    decorators = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())]
    return any(re.match(r"(?!click\.)\w+\.command\(", decorator) for decorator in decorators)


def defined(module: ast.Module) -> set[str]:
    """Public names that a module itself defines, but for its `log` and subcommands."""
    names = set()
    for node in module.body:
        if isinstance(node, Function | ast.ClassDef) and not registered(node):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")} - {"log"}


def imported(module: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: as ruff sorts."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_all_is_exact_and_sorted(path: Path) -> None:
    names = exported(tree(path))
    assert names is not None, "has no __all__"
    assert names == sorted(set(names), key=order)
    extra = set(names) - defined(tree(path))
    assert defined(tree(path)) <= set(names), "a public name is not in __all__: add it, or begin it with _"
    reexports = imported(tree(path)) if path.name == "__init__.py" else set()
    assert extra <= reexports, "__all__ names what the module does not define"


# --- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=relative)
def test_files_and_functions_are_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES
    sizes = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(path)}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


# --- layers ----------------------------------------------------------------------------------------


def test_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# --- tests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_nothing_is_mocked(path: Path) -> None:
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert not {name for name in names if "mock" in name.split(".")}


def called(node: ast.AST) -> set[str]:
    """Last names of what is called: "raises" of `pytest.raises(E)`, "CHECKS" of `CHECKS[law](make)`."""
    names = set()
    for call in (node for node in ast.walk(node) if isinstance(node, ast.Call)):
        function = call.func.value if isinstance(call.func, ast.Subscript) else call.func
        names |= {getattr(function, "attr", ""), getattr(function, "id", "")}
    return names


@cache
def asserting() -> frozenset[str]:
    """Functions of the tests that can fail: by an assertion, or by calling one that can."""
    found = {"raises", "warns", "fail"}
    every = [f for path in TESTS for f in functions(path)]
    found |= {f.name for f in every if any(isinstance(node, ast.Assert) for node in ast.walk(f))}
    while more := {f.name for f in every if f.name not in found and called(f) & found}:
        found |= more
    return frozenset(found)


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=relative)
def test_every_test_can_fail(path: Path) -> None:
    tests = [f for f in functions(path) if f.name.startswith("test_")]
    assert tests, "a test file without a test"
    contracts = {"check", "CHECKS"}  # of tests/contracts, see below
    vain = [f.name for f in tests if f.name not in asserting() and not called(f) & contracts]
    assert vain == []


def test_the_contracts_can_fail() -> None:
    contracts = [f.name for path in sorted((ROOT / "tests/contracts").glob("*.py")) for f in functions(path)]
    checks = {name for name in contracts if name.startswith("check_")}
    assert checks
    assert checks <= asserting()


# --- what the repository says ----------------------------------------------------------------------


@cache
def tracked() -> list[Path]:
    """Files that are in the repository or would be."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are tracked is not known")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_no_path_of_one_machine_and_no_registry() -> None:
    found = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace").lower()
        found += [f"{relative(path)}: {word}" for word in FORBIDDEN if word in text]
    assert found == []


def test_no_weights_and_no_data_are_tracked() -> None:
    """But for the recorded answers of the local models."""
    kinds = {".gguf", ".onnx", ".safetensors", ".parquet", ".whl", ".db"}
    own = {f"benchmarks/local/{name}.parquet" for name in ("answers", "models", "questions")}
    assert {relative(path) for path in tracked() if path.suffix in kinds} <= own
    assert max(path.stat().st_size for path in tracked()) < 1_000_000
