"""What comes back: frames, each sealed by the ask's reply key and numbered, the last one signed.

Only who could open the ask can make one, so that an impostor's frames are told from the answer's. Pure; knows
no transport and no clock.
"""

import hashlib
import os
import struct
from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Meta, Struct

from manyminds.errors import FrameError

__all__ = [
    "FRAME_BYTES",
    "MOST_CITED",
    "AnswerHash",
    "Answered",
    "Cited",
    "Failed",
    "Frame",
    "Grounded",
    "Said",
    "Sealer",
    "Told",
    "request_hash",
]

FRAME_BYTES: Final = 4_000_000
"""A larger frame is refused unread."""

MOST_CITED: Final = 16
"""Citations of an answer, at most."""

_HEAD: Final = struct.Struct(">7sI")
_TAG_BYTES: Final = 16
_ANSWER, _TELL = 0, 1  # direction


class Failed(Struct, frozen=True, omit_defaults=True):
    """Why there is no answer, as an error of OpenAI's shape says it."""

    message: Annotated[str, Meta(max_length=2000)]
    code: Annotated[str, Meta(max_length=64)] = ""
    status: int = 500
    retry_after_s: Annotated[float, Meta(ge=0, le=1e8)] | None = None


class Said(Struct, frozen=True, omit_defaults=True):
    """One who was asked by the answering node: expert, source, weight, and how that ended."""

    expert: Annotated[str, Meta(max_length=200)]
    source: Annotated[str, Meta(max_length=200)]
    weight: float = 0.0
    status: Annotated[str, Meta(max_length=20)] = "ok"


class Cited(Struct, frozen=True, omit_defaults=True):
    """Where an answer's words were found: see `types.Citation`."""

    source: Annotated[str, Meta(max_length=200)]
    expert: Annotated[str, Meta(max_length=200)] = ""
    document: Annotated[str, Meta(max_length=400)] = ""
    heading: Annotated[str, Meta(max_length=400)] = ""
    paragraph: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    quote: Annotated[str, Meta(max_length=4000)] = ""
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0


class Grounded(Struct, frozen=True, omit_defaults=True):
    """What an answer rests on: see `types.Grounds`. The citation that it owes most to comes first."""

    support: Annotated[float, Meta(ge=0, le=1)]
    citations: Annotated[tuple[Cited, ...], Meta(max_length=MOST_CITED)] = ()
    declined: bool = False


class Answered(Struct, frozen=True, omit_defaults=True):
    """The last frame of an answer.

    `receipt`: see `receipt`; `probability`: that the answer is right, as the answering node reckons; `nats`:
    how far it may move the whole, where the answering node has a budget of that; `grounds`: what it rests on,
    where that is documents.
    """

    finish_reason: Annotated[str, Meta(max_length=40)]
    receipt: Annotated[str, Meta(max_length=20_000)]
    probability: float | None = None
    panel: Annotated[tuple[Said, ...], Meta(max_length=256)] = ()
    nats: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    grounds: Grounded | None = None


class Frame(Struct, frozen=True, omit_defaults=True):
    """One frame: a piece of the answer, its end, or its failure. One without any of these says: still alive.

    `chunk` is a chat completion chunk in the place of `text`, where that would not say all.
    """

    text: str = ""
    chunk: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    answered: Answered | None = None
    failed: Failed | None = None


class Told(Struct, frozen=True, omit_defaults=True):
    """What who asked says while or after it is answered.

    `granted`: frames that may be sent in all; `cancel`: nobody wants the rest; `countersigned`: a signature
    of the receipt; `settled_nats`: how far the answer did move the whole.
    """

    granted: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    cancel: bool = False
    countersigned: dict[str, str] | None = None
    settled_nats: Annotated[float, Meta(ge=0, le=1e6)] | None = None


_frame, _told = msgspec.json.Decoder(Frame), msgspec.json.Decoder(Told)


class Sealer:
    """Seals and opens the messages of one ask, in one of its two directions each.

    Of those it opens, each counts once and in order. The first eleven bytes are its run and number, the rest
    is ChaCha20-Poly1305 (RFC 8439) of its JSON; nonce: a byte for the direction, then these eleven.

    The run is random: should an ask be answered twice, as after a restart, no nonce is used twice, and the
    answers are not taken for one. The first message that can be opened says which run counts.
    """

    def __init__(self, reply_key: bytes, *, answers: bool, run: bytes | None = None) -> None:
        """`answers`: whether this is the node that answers; `run`: seven bytes, by default random."""
        self._cipher = ChaCha20Poly1305(reply_key)
        self._out, self._in = (_ANSWER, _TELL) if answers else (_TELL, _ANSWER)
        self._run = run or os.urandom(7)
        self._their_run: bytes | None = None
        self.sent = self.received = 0

    def seal(self, message: Frame | Told) -> bytes:
        """The next message."""
        head = _HEAD.pack(self._run, self.sent)
        self.sent += 1
        return head + self._cipher.encrypt(bytes([self._out]) + head, msgspec.json.encode(message), None)

    def open_frame(self, sealed: bytes) -> Frame | None:
        """The next frame; None of one that is not of this answer, or was opened before: it does not count.

        Raises: FrameError where one before it is missing, or it cannot be read: the answer is lost.
        """
        found: Frame | None = self._open(sealed, _frame, gaps=False)
        return found

    def open_told(self, sealed: bytes) -> Told | None:
        """The same of the other direction, where each message says all that counts: some may be missing."""
        found: Told | None = self._open(sealed, _told, gaps=True)
        return found

    def _open(self, sealed: bytes, decoder: "msgspec.json.Decoder[Any]", *, gaps: bool) -> Any:
        if not _HEAD.size + _TAG_BYTES <= len(sealed) <= FRAME_BYTES:
            return None
        run, number = _HEAD.unpack_from(sealed)
        if number < self.received or run != (self._their_run or run):
            return None
        try:
            text = self._cipher.decrypt(bytes([self._in]) + sealed[: _HEAD.size], sealed[_HEAD.size :], None)
        except InvalidTag:
            return None
        self._their_run = run
        if number > self.received and not gaps:
            raise FrameError(f"frame {self.received} is missing: {number} came.")
        self.received = number + 1
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"frame {number} cannot be read: {error}.") from None


def request_hash(request: bytes, nonce: str) -> str:
    """SHA-256, in hex, of nonce and request: who does not know the nonce cannot guess at the request."""
    return hashlib.sha256(nonce.encode() + b"\n" + request).hexdigest()


class AnswerHash:
    """SHA-256, in hex, of nonce and all pieces of an answer."""

    def __init__(self, nonce: str) -> None:
        self._hash = hashlib.sha256(nonce.encode() + b"\n")

    def take(self, frame: Frame) -> None:
        """A piece: its text, or its chunk as it came."""
        self._hash.update(frame.text.encode("utf-8", "surrogatepass"))
        if frame.chunk is not msgspec.UNSET:
            self._hash.update(bytes(frame.chunk))

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()
