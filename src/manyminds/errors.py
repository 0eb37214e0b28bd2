"""Every way manyminds fails, on one screen. Knows nothing of what raised it.

ManymindsError                     500
├── ConfigError                    500  the configuration is wrong; nothing was started
├── CatalogError                   500  a model cannot be had
│   ├── UnknownModelError          500
│   ├── DownloadError              500  no source could be reached
│   ├── HashMismatchError          500  what arrived is not what was promised; it is deleted
│   └── DiskFullError              500
├── LedgerError                    500
├── DataError                      500  a recorded set does not keep its schema
├── ArtefactError                  500  what was learnt cannot be loaded
├── IndexFileError                 500  an index on disk cannot be read
├── DocumentsError                 500  an owner's documents cannot be indexed or searched
├── SignatureError                 500  what is signed was not signed by who it says
├── CardError                      500  a node's card that cannot be believed
├── FrameError                     500  a piece of another node's answer is missing
├── InvalidRequestError            400  the request is wrong; `param` names the field
│   ├── ModelNotFoundError         404
│   ├── EndpointNotFoundError      404
│   ├── UnknownRequestError        404  no request of its caller has that id
│   ├── AlreadyGradedError         409  an answer is graded once
│   ├── MethodNotAllowedError      405
│   ├── UnauthorizedError          401  no key, or one that this node does not know
│   ├── ForbiddenError             403
│   ├── AskError                   400  another node's ask that cannot be opened
│   ├── SlowRequestError           408  the caller sent its request too slowly
│   ├── TooLargeError              413
│   │   └── HeadTooLargeError      431
│   ├── NoExpertError              422  no expert meets what the request demands
│   ├── PrivacyError               422  a private answer cannot be given: too few candidates or sources
│   ├── RateLimitError             429  too many requests or tokens for its key, or too many at once
│   └── BudgetError                429  its key, or a source, has nothing left for this
└── AnswerError                    502  the request is right, yet no answer came
    ├── ExpertError                502  one expert failed
    │   ├── UnavailableError       503  it is down
    │   │   ├── PausedError        503  its owner has it asked by nobody for a while
    │   │   └── RejectedError      503  it lets this node in no more: its owner must mend that
    │   ├── RefusedError           400  it cannot do what this request asks for
    │   ├── GarbageError           502  what it sent is no answer
    │   ├── CutError               502  its stream ended before its answer did
    │   └── SlowError              504  it passed a time limit
    ├── AllExpertsFailedError      503  every expert on the panel failed
    ├── RequiredError              502  an expert that the request requires failed
    └── DeadlineError              504  the request's deadline passed before any answer
"""

from typing import Any, ClassVar

__all__ = [
    "AllExpertsFailedError",
    "AlreadyGradedError",
    "AnswerError",
    "ArtefactError",
    "AskError",
    "BudgetError",
    "CardError",
    "CatalogError",
    "ConfigError",
    "CutError",
    "DataError",
    "DeadlineError",
    "DiskFullError",
    "DocumentsError",
    "DownloadError",
    "EndpointNotFoundError",
    "ExpertError",
    "ForbiddenError",
    "FrameError",
    "GarbageError",
    "HashMismatchError",
    "HeadTooLargeError",
    "IndexFileError",
    "InvalidRequestError",
    "LedgerError",
    "ManymindsError",
    "MethodNotAllowedError",
    "ModelNotFoundError",
    "NoExpertError",
    "PausedError",
    "PrivacyError",
    "RateLimitError",
    "RefusedError",
    "RejectedError",
    "RequiredError",
    "SignatureError",
    "SlowError",
    "SlowRequestError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownModelError",
    "UnknownRequestError",
]


class ManymindsError(Exception):
    """Whatever manyminds itself raises. The message says what happened and what to do."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        message = message.encode("utf-8", "replace").decode()  # half characters could not be sent
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s  # when another try may do better; None where nobody knows

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": fields}


class ConfigError(ManymindsError):
    """The configuration is wrong; nothing was started."""

    code = "config_error"


class CatalogError(ManymindsError):
    """A model cannot be had."""

    code = "catalog_error"


class UnknownModelError(CatalogError):
    """The catalogue has no model of that name."""

    code = "unknown_model"


class DownloadError(CatalogError):
    """No source of a file could be reached."""

    code = "download_failed"


class HashMismatchError(CatalogError):
    """A file's sha256 is not the catalogue's; the file is deleted."""

    code = "hash_mismatch"


class DiskFullError(CatalogError):
    """The disk has no room for a file."""

    code = "disk_full"


class LedgerError(ManymindsError):
    """The ledger cannot be opened, read or written."""

    code = "ledger_error"


class DataError(ManymindsError):
    """A recorded set does not keep its schema."""

    code = "data_error"


class ArtefactError(ManymindsError):
    """What was learnt cannot be loaded."""

    code = "artefact_error"


class IndexFileError(ManymindsError):
    """An index on disk is damaged, or of a newer version."""

    code = "index_file_error"


class DocumentsError(ManymindsError):
    """An owner's documents cannot be indexed or searched."""

    code = "documents_error"


class SignatureError(ManymindsError):
    """What is signed was not signed by who it says, or not as what it is taken for."""

    code = "bad_signature"


class CardError(ManymindsError):
    """A node's card is too large, damaged, forged or out of date."""

    code = "bad_card"


class FrameError(ManymindsError):
    """A piece of another node's answer is missing or cannot be read."""

    code = "bad_frame"


class InvalidRequestError(ManymindsError):
    """The request is wrong; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ModelNotFoundError(InvalidRequestError):
    """`model` names neither a policy nor an expert."""

    status = 404
    code = "model_not_found"


class EndpointNotFoundError(InvalidRequestError):
    """No endpoint at this path."""

    status = 404
    code = "not_found"


class UnknownRequestError(InvalidRequestError):
    """No request of this caller has that id."""

    status = 404
    code = "request_not_found"


class AlreadyGradedError(InvalidRequestError):
    """An answer is graded once."""

    status = 409
    code = "already_graded"


class MethodNotAllowedError(InvalidRequestError):
    """The endpoint exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class UnauthorizedError(InvalidRequestError):
    """The request has no key, or one that this node does not know."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class ForbiddenError(InvalidRequestError):
    """The request comes from a web page that this node does not belong to, or its key is not for this."""

    status = 403
    code = "forbidden"


class AskError(InvalidRequestError):
    """What another node asks cannot be opened, was not signed by it, or was heard before."""

    code = "bad_ask"


class SlowRequestError(InvalidRequestError):
    """The request's body did not arrive in time."""

    status = 408
    code = "request_timeout"


class TooLargeError(InvalidRequestError):
    """The request body passes the size limit."""

    status = 413
    code = "request_too_large"


class HeadTooLargeError(TooLargeError):
    """Too many headers, or too long ones."""

    status = 431
    code = "headers_too_large"


class NoExpertError(InvalidRequestError):
    """No expert meets what the request demands."""

    status = 422
    code = "no_expert"


class PrivacyError(InvalidRequestError):
    """A private answer has too few candidates, or too few sources that may still be polled for it."""

    status = 422
    code = "privacy_refused"


class RateLimitError(InvalidRequestError):
    """Too many requests or tokens for the key, or too many requests at once; `Retry-After` says when."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetError(InvalidRequestError):
    """What the request may cost is more than is left of a budget, be it of its key or of a source."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class AnswerError(ManymindsError):
    """The request is right, yet no answer came."""

    status = 502
    type = "upstream_error"
    code = "no_answer"


class ExpertError(AnswerError):
    """One expert failed."""

    code = "expert_failed"


class UnavailableError(ExpertError):
    """The expert is down: connection refused, process dead, out of capacity."""

    status = 503
    code = "expert_unavailable"


class PausedError(UnavailableError):
    """Its owner has paused the expert: it is kept, and nobody asks it until it is resumed."""

    code = "expert_paused"


class RejectedError(UnavailableError):
    """The expert refuses whatever this node sends: a wrong key, no money. It will not pass by itself."""

    code = "expert_rejected"


class RefusedError(ExpertError):
    """The expert cannot do what this request asks for: another try would end the same."""

    status = 400
    type = "invalid_request_error"
    code = "expert_refused"


class GarbageError(ExpertError):
    """What the expert sent is no answer: not the wire format, or an error in the midst of it."""

    code = "expert_garbage"


class CutError(ExpertError):
    """The expert's stream ended before its answer did."""

    code = "expert_cut"


class SlowError(ExpertError):
    """The expert passed its time to first token or its idle limit."""

    status = 504
    type = "timeout_error"
    code = "expert_slow"


class AllExpertsFailedError(AnswerError):
    """Every expert on the panel failed; the message says how each did."""

    status = 503
    code = "all_experts_failed"


class RequiredError(AnswerError):
    """An expert failed without whose answer the caller wants none."""

    code = "required_failed"


class DeadlineError(AnswerError):
    """The request's deadline passed before any answer."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
