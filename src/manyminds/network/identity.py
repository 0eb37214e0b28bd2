"""Who a node is: an Ed25519 key, by which it signs, and the hash of that key, which is its name for ever.

Knows no card and no message. From the same secret comes the X25519 key to which others seal what is for this
node alone.
"""

import base64
import hashlib
import hmac
import os
import re
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from manyminds.errors import ConfigError

__all__ = ["KEY_FILE", "Identity", "id_of", "is_id", "member_of", "read_or_make"]

KEY_FILE: Final = "node.key"
"""Where in the home a node's secret key is."""

_ID: Final = re.compile(r"[a-z2-7]{32}")
_EXCHANGE: Final = b"manyminds exchange 1"
_MEMBER: Final = b"manyminds member 1 "


@lru_cache(4096)
def id_of(public_key: bytes) -> str:
    """The node id of an Ed25519 public key of 32 bytes: 32 letters and digits.

    base32, in lower case, of the first 20 bytes of its SHA-256.
    """
    return base64.b32encode(hashlib.sha256(public_key).digest()[:20]).decode().lower()


def member_of(secret: str, node: str) -> str:
    """Proof that a node knows the secret of a network, for its own id alone; "" where there is no secret.

    base64url of HMAC-SHA256 under the secret, of "manyminds member 1 " and the id.
    """
    if not secret:
        return ""
    proof = hmac.digest(secret.encode(), _MEMBER + node.encode(), "sha256")
    return base64.urlsafe_b64encode(proof).rstrip(b"=").decode()


def is_id(text: str) -> bool:
    """Whether it has the form of a node id."""
    return _ID.fullmatch(text) is not None


class Identity:
    """A node's keys.

    Attributes:
        id: see `id_of`.
        public: 32 bytes, of Ed25519; exchange: 32 bytes, of X25519, to which is sealed.
    """

    def __init__(self, secret: Ed25519PrivateKey) -> None:
        self._secret = secret
        seed = secret.private_bytes_raw()
        derived = HKDF(hashes.SHA256(), 32, None, _EXCHANGE).derive(seed)
        self.exchange_secret = X25519PrivateKey.from_private_bytes(derived)
        self.public = secret.public_key().public_bytes_raw()
        self.exchange = self.exchange_secret.public_key().public_bytes_raw()
        self.id = id_of(self.public)

    @classmethod
    def generate(cls) -> "Identity":
        """A new one, of the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of_seed(cls, seed: bytes) -> "Identity":
        """That of 32 bytes, which nobody else may know."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, what: bytes) -> bytes:
        """64 bytes."""
        return self._secret.sign(what)

    def pem(self) -> bytes:
        """The secret key as PKCS #8."""
        return self._secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def read_or_make(home: Path) -> Identity:
    """The identity of a home; a new one on first use, in a file that only its owner can read.

    Of several processes that come at once, all get the same. Raises: ConfigError.
    """
    file = home / KEY_FILE
    try:
        if not file.exists():
            _make(file)
        return _read(file)
    except OSError as error:
        raise ConfigError(f"Cannot read or write {file}: {error.strerror}.") from error


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.") as made:  # mode 0600
        made.write(Identity.generate().pem())
        made.flush()
        os.fsync(made.fileno())
        try:
            os.link(made.name, file)  # unlike a rename, leaves what another process was quicker to make
        except FileExistsError:
            return


def _read(file: Path) -> Identity:
    if file.stat().st_mode & 0o077:
        raise ConfigError(f"{file} is this node's secret and others can read it: run `chmod 600 {file}`.")
    try:
        secret = serialization.load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        secret = None
    if not isinstance(secret, Ed25519PrivateKey):
        raise ConfigError(
            f"{file} holds no Ed25519 key: put back the file that was there, or move it away for a new "
            "identity, whom no peer knows."
        )
    return Identity(secret)
