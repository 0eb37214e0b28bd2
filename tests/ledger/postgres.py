"""A PostgreSQL server of our own, in a folder of its own, for as long as the tests run."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

__all__ = ["Server", "binaries", "served"]

PASSWORD = "hunter2"


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: Debian keeps it off the PATH."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))[::-1]
    return next(
        (place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None
    )


class Server:
    """Listens on a free port of the loopback interface; ends with `stop`."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._names = count()
        self._user: str | None = None
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            import pwd

            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--username=me",
            "--no-sync",
            "--encoding=UTF8",
        )
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is as if it were killed: it must recover when it starts again."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def url(self, database: str) -> str:
        return f"postgresql://me:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new(self) -> str:
        """The URL of an empty schema, which is to the ledger a database of its own; quicker to make."""
        import psycopg

        name = f"test_{next(self._names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return self.url(f"postgres?options=-csearch_path%3D{name}")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            user=self._user,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would stay open for as long as the server runs
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            log = self._folder / "log"
            raise AssertionError(f"{program} failed: {log.read_text() if log.exists() else done.returncode}")


@contextmanager
def served(binaries: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="manyminds-") as folder:
        server = Server(binaries, Path(folder))
        try:
            yield server
        finally:
            server.stop("immediate")
