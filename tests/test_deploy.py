"""What is shipped to run it elsewhere: every command of recipe, unit and their page is really run.

No Docker is needed and no image is built: a box (see `tests.container`) with the recipe's own paths, user and
read-only root stands for the container, and one with the unit's own rules for the service.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from manyminds import config
from manyminds.cli.service import DRAIN_S
from manyminds.web import server, spans
from tests.container import Box, Rules, Running, need_namespaces
from tests.e2e.node import need, wait_until
from tests.pulled import HOME

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "deploy/Dockerfile"
UNIT = ROOT / "deploy/manyminds.service"
PAGE = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"

# Instead of a registry: the packages that are installed for the tests.
OFFLINE = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PYTHONPATH": "/deps"}


# --- reading them ----------------------------------------------------------------------------------


@dataclass
class Stage:
    """One `FROM` and what follows it."""

    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str:
        return [rest for step, rest in self.steps if step == word][-1]


@cache
def stages() -> tuple[Stage, ...]:
    text = re.sub(r"^\s*#.*\n", "", RECIPE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append(Stage(rest.partition(" AS ")[2]))
        elif word:
            found[-1].steps.append((word, rest.strip()))
    return tuple(found)


def unit() -> dict[str, list[str]]:
    """Every setting of the unit, with its values in order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def context(folder: Path) -> Path:
    """What Docker would send to the build: the repository, less what .dockerignore names."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if not path.is_file() or relative.parts[0] in (".venv", ".git"):
            continue
        ignored = False
        for rule in rules:
            wanted = rule.removeprefix("!")
            ancestors = [str(relative), *map(str, relative.parents)]
            plain = (
                [re.sub(r"^(.*/)?", "**/", name) for name in ancestors]
                if wanted.startswith("**/")
                else ancestors
            )
            if any(fnmatch(name, wanted) for name in plain):
                ignored = not rule.startswith("!")
        if not ignored:
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / relative)
    return folder


# --- linted ----------------------------------------------------------------------------------------


def test_the_recipe_is_linted() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install -e '.[dev]'")
    linted = subprocess.run([hadolint, RECIPE], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_the_build_gets_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    sent = {str(path.relative_to(tmp_path)) for path in context(tmp_path).rglob("*") if path.is_file()}
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert sent == {name for name in source if "__pycache__" not in name} | {
        "LICENSE",
        "README.md",
        "pyproject.toml",
    }


def test_the_image_holds_no_secret_and_is_nobodys_root() -> None:
    (_, final) = stages()
    settings = [rest for stage in stages() for step, rest in stage.steps if step in ("ENV", "ARG")]
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", " ".join(settings), flags=re.IGNORECASE)
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", final.last("USER"))
    assert final.last("STOPSIGNAL") == "SIGTERM"
    assert final.last("VOLUME") == final.last("WORKDIR") == "/data"


def test_the_extras_that_are_installed_exist() -> None:
    """The build below leaves dependencies out: it would not notice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in (stages()[0].last("RUN"), PAGE):
        (named,) = re.findall(r'pip install .* "\.\[(.*)\]"', text)
        assert set(named.split(",")) <= project["optional-dependencies"].keys()


def test_the_unit_is_as_closed_as_it_can_be() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(UNIT)]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout


def test_the_unit_waits_longer_than_the_node_takes_to_end() -> None:
    needed_s = DRAIN_S + 2 * server._LAST_WORDS_S + spans._LAST_S
    assert needed_s < int(unit()["TimeoutStopSec"][0])
    assert needed_s <= int(re.findall(r"docker stop -t (\d+)", PAGE)[0])
    assert unit()["KillMode"] == ["mixed"]


# --- the container ---------------------------------------------------------------------------------


@dataclass
class Image:
    """The recipe's last stage, built: its files, and what it says of how to run it."""

    root: Path
    env: dict[str, str]
    health: list[str]
    entrypoint: list[str]
    command: list[str]
    uid: int


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Every instruction carried out, with packages from the tests' own environment instead of a registry."""
    need_namespaces()
    sent = context(tmp_path_factory.mktemp("context"))
    roots: dict[str, Path] = {}
    env: dict[str, str] = {}
    for number, stage in enumerate(stages()):
        box = Box(tmp_path_factory.mktemp(f"stage{number}"))
        roots[stage.name] = box.root
        env, cwd = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}, "/"
        for step, rest in stage.steps:
            if step == "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", rest):
                    env[name] = value.replace("$PATH", env["PATH"])
            elif step == "WORKDIR":
                cwd = rest
                (box.root / cwd.strip("/")).mkdir(parents=True, exist_ok=True)
            elif step == "COPY":
                copy(rest, sent, roots, box.root / cwd.strip("/"), box.root)
            elif step == "RUN":
                done = box.run("/bin/sh", "-c", rest, env={**env, **OFFLINE}, cwd=cwd)
                assert done.returncode == 0, done.stdout + done.stderr
    words = dict(stages()[-1].steps)
    health = json.loads(words["HEALTHCHECK"].partition("CMD ")[2])
    entrypoint, command = json.loads(words["ENTRYPOINT"]), json.loads(words["CMD"])
    return Image(box.root, env, health, entrypoint, command, int(words["USER"].partition(":")[0]))


def copy(words: str, sent: Path, roots: dict[str, Path], cwd: Path, root: Path) -> None:
    """One COPY."""
    *names, to = words.split()
    place = root / to.strip("/") if to.startswith("/") else cwd / to
    if names[0].startswith("--from="):
        shutil.copytree(roots[names[0].removeprefix("--from=")] / names[1].strip("/"), place, symlinks=True)
        return
    for name in names:
        if (sent / name).is_dir():
            shutil.copytree(sent / name, place)
        else:
            shutil.copy(sent / name, place)


@dataclass
class Container:
    """What `docker run --read-only -v VOLUME:/data` makes of an image."""

    image: Image
    volume: Path
    log: Path

    @property
    def rules(self) -> Rules:
        return Rules(uid=self.image.uid, read_only=True, no_new_privileges=True, first=True)

    @property
    def box(self) -> Box:
        box = Box.__new__(Box)
        box.root, box.mounts = self.image.root, {"/data": self.volume}
        return box

    def env(self, **more: str) -> dict[str, str]:
        return {**self.image.env, "PYTHONPATH": "/deps", "MANYMINDS_LOCAL_TIER": "none", **more}

    def run(self, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [*self.image.entrypoint, *(words or self.image.command)]
        return self.box.run(*command, env=self.env(**more), cwd="/data", rules=self.rules)

    def running(self, **more: str) -> Any:
        command = [*self.image.entrypoint, *self.image.command]
        return self.box.running(*command, env=self.env(**more), cwd="/data", rules=self.rules, log=self.log)


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Container:
    """With an empty volume, which as Docker's has the mode and owner of the image's folder."""
    (volume := tmp_path / "volume").mkdir()
    folder = (image.root / "data").stat()
    os.chown(volume, folder.st_uid, folder.st_gid)
    volume.chmod(folder.st_mode)
    return Container(image, volume, tmp_path / "log")


def status(node: Running, path: str, *headers: str) -> int:
    """Of a GET from within; 0 where nobody listens."""
    lines = [word for header in headers for word in ("--header", header)]
    said = node.run(
        "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *lines, URL + path
    )
    return int(said.stdout or 0)


def ready(node: Running) -> bool:
    """Whether it gets ready before it ends and within the time that a test has."""
    wait_until(lambda: node.process.poll() is not None or status(node, "/health/ready") == 200)
    return node.process.poll() is None


def test_a_container_needs_a_key_first_and_says_so(container: Container) -> None:
    refused = container.run()
    assert refused.returncode == 1
    assert "manyminds keys create NAME" in refused.stderr


def test_a_container_serves_and_ends(container: Container) -> None:
    made = container.run("keys", "create", "ann")
    assert made.returncode == 0, made.stderr
    bearer = f"authorization: Bearer {made.stdout.strip()}"
    with container.running() as node:
        assert ready(node), container.log.read_text()
        checked = node.run(*container.image.health)
        assert checked.returncode == 0, checked.stderr
        assert status(node, "/v1/models") == 401
        assert status(node, "/v1/models", bearer) == 200
        about = dict(line.split(":", 1) for line in Path(f"/proc/{node.pid}/status").read_text().splitlines())
        assert about["Uid"].split() == [str(container.image.uid)] * 4
        assert int(about["CapEff"], 16) == int(about["CapBnd"], 16) == 0
        written = node.run("python", "-c", "open('/tmp/x', 'w')", HOME="/data")
        assert "Read-only file system" in written.stderr
        assert node.end() == 0
    assert "Traceback" not in container.log.read_text()
    assert {path.name for path in container.volume.iterdir()} <= {
        "ledger.db",
        "ledger.db-wal",
        "ledger.db-shm",
    }


def test_the_health_check_fails_where_nobody_answers(container: Container) -> None:
    env = container.env(MANYMINDS_SERVER_PORT="8000")
    checked = container.box.run(*container.image.health, env=env, cwd="/data", rules=container.rules)
    assert checked.returncode == 1
    assert "refused" in checked.stderr


def test_the_health_check_goes_where_the_node_listens(container: Container) -> None:
    container.run("keys", "create", "ann")
    with container.running(MANYMINDS_SERVER_PORT="8123") as node:
        assert wait_until(lambda: node.run(*container.image.health).returncode == 0), (
            container.log.read_text()
        )
        assert node.end() == 0


def asked(node: Running, key: str = "") -> Any:
    """The answer to one question, from within."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "What is 17 + 26?"}], "max_tokens": 32}
    words = ["curl", "--silent", "--max-time", "50", "--json", json.dumps(body)]
    if key:
        words += ["--header", f"x-api-key: {key}"]
    return json.loads(node.run(*words, f"{URL}/v1/chat/completions").stdout)


def heard(body: Any) -> dict[str, str]:
    return {entry["expert"]: entry["status"] for entry in body["manyminds"]["panel"]}


def test_real_models_answer_in_a_container(container: Container) -> None:
    need()
    secret = container.run("keys", "create", "ann").stdout.strip()
    (container.volume / "models").mkdir()
    box = container.box
    box.mounts["/data/models"] = HOME / "models"
    command, env = [*container.image.entrypoint, *container.image.command], container.env()
    env["MANYMINDS_LOCAL_TIER"] = "starter"
    with box.running(*command, env=env, cwd="/data", rules=container.rules, log=container.log) as node:
        assert ready(node), container.log.read_text()
        assert set(heard(asked(node, secret)).values()) == {"ok"}
        assert node.end() == 0


# --- the service -----------------------------------------------------------------------------------


@cache
def calls_of(group: str) -> frozenset[str]:
    """System calls of one of systemd's groups."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in listed.stdout.splitlines()[1:]]
    names = [word for word in words if word and word[0] != "#"]
    found = {name for name in names if name[0] != "@"}
    return frozenset(found.union(*(calls_of(name) for name in names if name[0] == "@")))


def allowed() -> list[str]:
    """System calls that the unit lets through."""
    found: set[str] = set()
    for value in unit()["SystemCallFilter"]:
        named = set().union(*(calls_of(group) for group in value.removeprefix("~").split()))
        found = found - named if value.startswith("~") else found | named
    return sorted(found)


@dataclass
class Host:
    """A machine where the page's commands for systemd have been run, and what the unit makes of them."""

    box: Box
    secret: str
    log: Path

    @property
    def rules(self) -> Rules:
        (uid,) = re.findall(
            r"^manyminds:[^:]*:(\d+):", (self.box.root / "etc/passwd").read_text(), re.MULTILINE
        )
        families = [getattr(socket, name) for name in unit()["RestrictAddressFamilies"][0].split()]
        return Rules(
            uid=int(uid),
            read_only=unit()["ProtectSystem"] == ["strict"],
            no_new_privileges=unit()["NoNewPrivileges"] == ["yes"],
            no_new_code=unit()["MemoryDenyWriteExecute"] == ["yes"],
            calls=allowed(),
            families=families,
        )

    @property
    def env(self) -> dict[str, str]:
        words = shlex.split(unit()["Environment"][0])
        return {"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": "/deps"} | dict(w.split("=", 1) for w in words)

    def running(self, **more: str) -> Any:
        """ExecStart."""
        command = shlex.split(unit()["ExecStart"][0])
        cwd = unit()["WorkingDirectory"][0]
        return self.box.running(*command, env=self.env | more, cwd=cwd, rules=self.rules, log=self.log)


def lines(section: str) -> list[str]:
    """What a section of the page tells to type."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Every line of the page's section, typed by root in a copy of the repository."""
    need_namespaces()
    if shutil.which("systemctl") is None:
        pytest.skip("systemd is not installed")
    folder = tmp_path_factory.mktemp("host")
    box = Box(folder / "root")
    for name in ("etc/manyminds", "var/lib", "var/backups", "source"):
        (box.root / name).mkdir(parents=True)
    context(box.root / "source")
    shutil.copytree(ROOT / "deploy", box.root / "source/deploy")
    # systemctl then writes what it would, and leaves out what only a running systemd could do.
    env = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin", "SYSTEMD_OFFLINE": "1", **OFFLINE}
    secret = ""
    for line in lines("With systemd"):
        done = box.run("/bin/sh", "-c", line, env=env, cwd="/source")
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        secret = done.stdout.strip()
    for name in ("var/lib/manyminds", "tmp"):  # StateDirectory and PrivateTmp: what it may write
        box.mounts[f"/{name}"] = box.root / name
    (box.root / "tmp").chmod(0o1777)
    return Host(box, secret, folder / "log")


def test_systemd_has_nothing_to_say_against_the_unit(host: Host) -> None:
    env = {"PATH": "/usr/sbin:/usr/bin"}
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    checked = host.box.run(*command, "/etc/systemd/system/manyminds.service", env=env)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_service_reloads_and_ends_as_the_unit_says(host: Host) -> None:
    with host.running(MANYMINDS_LOCAL_TIER="none", MANYMINDS_SERVER_HOST="0.0.0.0") as node:
        assert ready(node), host.log.read_text()
        assert status(node, "/v1/models", f"x-api-key: {host.secret}") == 200
        for line in lines("Watching"):
            assert node.run("/bin/sh", "-c", line).returncode == 0
        (reload,) = unit()["ExecReload"]
        assert node.run("/bin/sh", "-c", reload.replace("$MAINPID", str(node.inside))).returncode == 0
        assert status(node, "/v1/models", f"x-api-key: {host.secret}") == 200, host.log.read_text()
        assert status(node, "/metrics", f"authorization: Bearer {host.secret}") == 200
        assert status(node, "/metrics") == 401
        assert node.end() == 0
    assert "Traceback" not in host.log.read_text()


def test_real_models_answer_under_the_units_rules(host: Host) -> None:
    """No new code in memory, only the system calls of services: onnxruntime and llama.cpp live with it."""
    need()
    models = host.box.root / "var/lib/manyminds/models"
    models.mkdir()
    host.box.mounts["/var/lib/manyminds/models"] = HOME / "models"
    with host.running(MANYMINDS_LOCAL_TIER="starter") as node:
        assert ready(node), host.log.read_text()
        assert set(heard(asked(node)).values()) == {"ok"}
        assert node.end() == 0
    del host.box.mounts["/var/lib/manyminds/models"]


FORBIDDEN = {
    "code in memory": "import mmap; mmap.mmap(-1, 4096, prot=7)",
    "another owner": "import os; os.chown('/var/lib/manyminds', 0, 0)",
    "a raw socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "a file elsewhere": "open('/opt/manyminds/x', 'w')",
    "a mount": "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); "
    "c.mount(b'x', b'/tmp', b'tmpfs', 0, None) and os.close(-ctypes.get_errno())",
}


@pytest.mark.parametrize("code", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_rules_are_in_force(host: Host, code: str) -> None:
    """Else the tests above would show nothing."""
    tried = host.box.run("/opt/manyminds/bin/python", "-c", code, env=host.env, rules=host.rules)
    assert tried.returncode == 1
    assert re.search(r"PermissionError|Read-only file system|Bad file descriptor", tried.stderr), tried.stderr


def test_a_backup_is_taken_while_it_runs(host: Host) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    host.box.mounts["/var/backups"] = host.box.root / "var/backups"
    with host.running(MANYMINDS_LOCAL_TIER="none") as node:
        assert ready(node), host.log.read_text()
        (line,) = lines("Backup")
        enter = ["nsenter", "--target", str(node.pid), "--mount", "--root", "/bin/sh", "-c", line]
        subprocess.run(enter, check=True, env={"PATH": "/usr/bin"})
        assert node.end() == 0
    listed = ["sqlite3", str(host.box.root / "var/backups/manyminds.db"), "select name from keys"]
    assert "ann" in subprocess.run(listed, capture_output=True, text=True, check=True).stdout


# --- the page --------------------------------------------------------------------------------------


def test_the_page_tells_to_build_and_run_what_is_tested_here() -> None:
    """What Docker would do is done above: the build, a key, and the image's own command, read-only."""
    build, key, run = lines("As a container")
    assert RECIPE.read_text(encoding="utf-8").startswith(f"# {build}\n")
    assert shlex.split(key)[-4:] == ["manyminds", "keys", "create", "ann"]
    assert shlex.split(run)[-1] == "manyminds"
    assert {"--read-only", "no-new-privileges", "manyminds:/data"} <= set(shlex.split(run))
    if shutil.which("docker") is None:
        pytest.skip("no docker client is installed to check its options by")
    known = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=True).stdout
    for word in [word for line in (key, run) for word in shlex.split(line) if word.startswith("-")]:
        assert re.search(rf"^\s+(-\w, )?{word}\b|^\s+{word}, ", known, flags=re.MULTILINE), word


def test_the_settings_of_the_page_load(tmp_path: Path) -> None:
    for number, text in enumerate(re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        assert config.load(file, {"MANYMINDS_HOME": str(tmp_path)}, {}).file == file


def test_every_command_of_the_page_is_run() -> None:
    every = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    run = [lines(section) for section in ("As a container", "With systemd", "Watching", "Backup")]
    assert [line for block in every for line in block.splitlines()] == [line for part in run for line in part]


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) <= 120
