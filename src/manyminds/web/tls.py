"""A certificate and its key, from files to what encrypts. Knows no socket."""

import ssl
from pathlib import Path

from manyminds.errors import ConfigError

__all__ = ["context"]


def context(cert: Path, key: Path) -> ssl.SSLContext:
    """For TLS 1.2 and later. `cert` holds the certificate and what vouches for it, `key` its key, as PEM.

    Raises: ConfigError.
    """
    _look(cert, "certificate", "server.tls_cert", "CERTIFICATE-----")
    _look(key, "key", "server.tls_key", "PRIVATE KEY-----")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    asked: list[bool] = []

    def password() -> str:
        asked.append(True)
        return ""

    try:
        made.load_cert_chain(cert, key, password)  # without one, it would be asked for on the terminal
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(_why(cert, key, error, encrypted=bool(asked))) from None
    return made


def _look(file: Path, what: str, setting: str, mark: str) -> None:
    """Raises: ConfigError where the file cannot be read or is no PEM of that."""
    try:
        text = file.read_text("latin-1")
    except OSError as error:
        why = f"The TLS {what} {file} cannot be read: {error.strerror or error}."
        raise ConfigError(f"{why} Let `{setting}` name a file that this user can read.") from None
    if mark not in text:
        raise ConfigError(
            f"{file} holds no {what} in PEM format: `{setting}` names a file with `{mark}` in it."
        )


def _why(cert: Path, key: Path, error: Exception, *, encrypted: bool) -> str:
    if encrypted:
        return f"The TLS key {key} is encrypted: decrypt it with `openssl pkey -in {key} -out FILE`."
    reason = getattr(error, "reason", None) or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        return (
            f"The TLS key {key} does not belong to the certificate {cert}, or that is not first in its file."
        )
    return f"The TLS certificate {cert} and its key {key} cannot be used ({reason}): make them anew."
