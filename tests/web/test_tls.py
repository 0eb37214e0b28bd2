"""Certificates from real files, as `openssl` makes them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from manyminds.errors import ConfigError
from manyminds.web.tls import context


def openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the program `openssl` is not installed")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)


def made(folder: Path, name: str, *more: str, kind: str = "rsa:2048") -> tuple[Path, Path]:
    """A certificate for this machine that vouches for itself, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    protect = more or ("-nodes",)
    openssl("req", "-x509", "-newkey", kind, "-days", "2", "-out", cert, "-keyout", key, *subject, *protect)
    return cert, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    made(folder, "a")
    made(folder, "other")
    made(folder, "locked", "-passout", "pass:secret")
    both = (folder / "a.crt").read_text() + (folder / "a.key").read_text()
    (folder / "both.pem").write_text(both)
    (folder / "broken.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (folder / "empty").write_text("")
    (folder / "binary").write_bytes(bytes(range(256)))
    return folder


@pytest.mark.parametrize(("cert", "key"), [("a.crt", "a.key"), ("both.pem", "both.pem")])
def test_a_certificate_and_its_key_are_read(folder: Path, cert: str, key: str) -> None:
    tls = context(folder / cert, folder / key)
    assert tls.minimum_version.name == "TLSv1_2"


def test_a_key_may_be_of_another_kind(tmp_path: Path) -> None:
    openssl("ecparam", "-name", "prime256v1", "-out", tmp_path / "curve")
    cert, key = made(tmp_path, "ec", kind=f"ec:{tmp_path / 'curve'}")
    assert context(cert, key).minimum_version.name == "TLSv1_2"


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("none.crt", "a.key", r"certificate .*none.crt cannot be read: No such file.* `server.tls_cert`"),
        ("a.crt", "none.key", r"key .*none.key cannot be read: No such file.* `server.tls_key`"),
        (".", "a.key", r"cannot be read: Is a directory"),
        ("a.crt", ".", r"cannot be read: Is a directory"),
        ("a.key", "a.crt", r"a.key holds no certificate in PEM format"),
        ("a.crt", "a.crt", r"a.crt holds no key in PEM format"),
        ("empty", "a.key", r"empty holds no certificate"),
        ("a.crt", "binary", r"binary holds no key"),
        ("a.crt", "other.key", r"other.key does not belong to the certificate .*a.crt"),
        ("locked.crt", "locked.key", r"locked.key is encrypted: decrypt it with `openssl pkey -in"),
        ("broken.crt", "a.key", r"cannot be used"),
        ("a.crt", "broken.key", r"cannot be used"),
    ],
)
def test_what_is_wrong_with_the_files_is_told(folder: Path, cert: str, key: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        context(folder / cert, folder / key)
