"""Keys of nodes: made once, read by nobody else, and what they are called by."""

import multiprocessing
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Barrier as ThreadBarrier

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import ConfigError
from manyminds.network import need
from manyminds.network.identity import KEY_FILE, Identity, id_of, is_id, read_or_make

SEED = bytes(range(32))


def pem(key: PrivateKeyTypes, password: bytes | None = None) -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        how = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def put(home: Path, content: bytes, mode: int = 0o600) -> Path:
    file = home / KEY_FILE
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    made = read_or_make(home)
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    before = (home / KEY_FILE).read_bytes()
    again = read_or_make(home)
    assert (again.id, again.public, again.exchange) == (made.id, made.public, made.exchange)
    assert (home / KEY_FILE).read_bytes() == before
    assert [file.name for file in home.iterdir()] == [KEY_FILE]
    assert made.id != Identity.generate().id


def test_threads_that_come_at_once_get_the_same(tmp_path: Path) -> None:
    start = ThreadBarrier(8)

    def come(_: int) -> str:
        start.wait()
        return read_or_make(tmp_path).id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(come, range(8)))) == 1
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]


def come(home: Path, number: int, start: Barrier) -> None:
    start.wait()
    (home / str(number)).write_text(read_or_make(home / "home").id)


def test_processes_that_come_at_once_get_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(8)
    processes = [context.Process(target=come, args=(tmp_path, i, start)) for i in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert len({(tmp_path / str(i)).read_text() for i in range(8)}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = put(tmp_path, Identity.of_seed(SEED).pem(), mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        read_or_make(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == mode
    file.chmod(0o600)
    assert read_or_make(tmp_path).id == Identity.of_seed(SEED).id


OTHER_KEYS = {
    "empty": b"",
    "text": b"no key at all",
    "bytes": bytes(range(256)),
    "half": Identity.of_seed(SEED).pem()[:70],
    "x25519": pem(x25519.X25519PrivateKey.generate()),
    "p-256": pem(ec.generate_private_key(ec.SECP256R1())),
    "locked": pem(Ed25519PrivateKey.generate(), b"secret"),
}


@pytest.mark.parametrize("kind", OTHER_KEYS)
def test_another_kind_of_file_is_refused_and_left(tmp_path: Path, kind: str) -> None:
    file = put(tmp_path, OTHER_KEYS[kind])
    with pytest.raises(ConfigError, match="put back the file that was there") as refused:
        read_or_make(tmp_path)
    assert str(file) in refused.value.message
    assert file.read_bytes() == OTHER_KEYS[kind]


def test_where_no_file_can_be_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(ConfigError, match="Cannot read or write"):
        read_or_make(tmp_path / "home")
    os.mkdir(tmp_path / KEY_FILE)
    (tmp_path / KEY_FILE).chmod(0o700)
    with pytest.raises(ConfigError, match="Cannot read or write"):
        read_or_make(tmp_path)


def test_the_id_of_a_key_is_the_same_for_ever() -> None:
    """Ed25519 from RFC 8032, 7.1, test 1; the id by `sha256sum | cut -c1-40 | xxd -r -p | base32`."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    node = Identity.of_seed(seed)
    assert node.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert node.id == "eh7ddx5bksrgcytl7bkai36se4nxx3kl"
    assert node.exchange.hex() == "2ec59f667775b8afe88cee51451449ead0738b3073cb00decd83688fe382e40b"
    assert id_of(node.public) == node.id
    assert is_id(node.id)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_a_key_signs_and_keeps_its_id(seed: bytes, what: bytes) -> None:
    node = Identity.of_seed(seed)
    Ed25519PublicKey.from_public_bytes(node.public).verify(node.sign(what), what)
    assert is_id(node.id)
    assert Identity.of_seed(seed).id == node.id
    assert node.exchange != node.public


@pytest.mark.parametrize("text", ["", "a" * 31, "a" * 33, "A" * 32, "1" * 32, "a" * 32 + "\n", "a*" * 16])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("lacking", ["cryptography", "rfc8785"])
def test_a_plain_install_is_told_what_it_lacks(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need()
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(ConfigError, match=r"pip install 'manyminds\[net\]'"):
        need()
