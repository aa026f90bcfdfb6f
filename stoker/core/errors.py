"""The error catalogue.

    StokerError
      CallerError          change the request
        Unauthorized  Forbidden (MissingScope)  NotFound (ModelNotFound)  InvalidRequest  TooLarge  RateLimited  Conflict  MethodNotAllowed
        RequirementsNotMet  KeyQueueFull  IncompatibleVersion  DocumentChanged
        SessionNotFound  SessionExpired  SessionEnded  AppMismatch  VersionMismatch  WorkerLeased
      AppFailed            the app's own message
        ModelFailed
      NoCapacity           wait, or add a worker
        QueueFull  QueueTimeout  NoMatchTimeout
      WorkerLost           the process that held the session's memory is gone: open a new session
      StaleAttempt         another attempt owns the task: stop, drop, count
      ProtocolRefusal      a script refused a write (unknown task, illegal move, lost leadership ...)
      ScriptFailed         a script broke off on what is in Redis
      StoreUnavailable     Redis did not answer: try again
      FilesUnavailable     the file store did not answer: try again
      SecretUnreadable     a stored secret cannot be decrypted: the operator's to put right
      Bug                  ours: report it

Each class has a `code` (the last part of the problem type), an HTTP status, and says whether a repeat helps.
With no text given, the first line of the docstring is the message.
"""

from typing import ClassVar


class StokerError(Exception):
    """Something went wrong in Stoker."""

    code: ClassVar[str] = "internal_error"
    http: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", **fields: object) -> None:
        self.message = message or (self.__doc__ or "").strip().splitlines()[0]
        self.fields = fields
        super().__init__(self.message)

    @property
    def title(self) -> str:
        """The short name of the error, from its code."""
        return self.code.replace("_", " ").capitalize()


class CallerError(StokerError):
    """The request cannot be served as it is. Change it and send it again."""

    code = "invalid_request"
    http = 400


class Unauthorized(CallerError):
    """Invalid API key"""

    code = "unauthorized"
    http = 401


class Forbidden(CallerError):
    """This key may not do that."""

    code = "forbidden"
    http = 403


class MissingScope(Forbidden):
    """This key lacks a scope. Use a key that has those of `missing_scopes`."""


class NotFound(CallerError):
    """Not found"""

    code = "not_found"
    http = 404


class ModelNotFound(NotFound):
    """The model does not exist. GET /models lists those that do."""

    code = "model_not_found"


class InvalidRequest(CallerError):
    """The request is not valid."""


class MethodNotAllowed(CallerError):
    """This path does not take that method."""

    code = "method_not_allowed"
    http = 405


class Conflict(CallerError):
    """The thing is not in a state that allows this."""

    code = "conflict"
    http = 409


class IncompatibleVersion(CallerError):
    """A worker daemon and the control plane speak versions of the protocol that do not fit. Update the older one."""

    code = "incompatible_version"
    http = 409


class DocumentChanged(Conflict):
    """Somebody else changed it at the same time. Read it again, and repeat."""

    code = "document_changed"


class RequirementsNotMet(CallerError):
    """The app needs secrets or connected accounts that are missing. Add what `errors` names.

    `missing` are the entries of the answer's `errors`: type, key, message, action.
    """

    code = "requirements_not_met"
    http = 412

    def __init__(self, message: str = "", missing: tuple[dict[str, object], ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class TooLarge(CallerError):
    """The body is larger than the limit. Upload large data as a file."""

    code = "too_large"
    http = 413


class RateLimited(CallerError):
    """Too many requests. Wait for the time that Retry-After names."""

    code = "rate_limited"
    http = 429
    retryable = True


class KeyQueueFull(RateLimited):
    """As many tasks of this API key wait as may. Wait until some have started."""

    code = "key_queue_full"


class SessionNotFound(CallerError):
    """Session not found. It never was, or it ended more than a day ago."""

    code = "SESSION_NOT_FOUND"
    http = 404


class SessionExpired(CallerError):
    """The session has expired: no call came for its idle time. Open a new one with session: new."""

    code = "SESSION_EXPIRED"
    http = 410


class SessionEnded(CallerError):
    """The session was ended. Open a new one with session: new."""

    code = "SESSION_ENDED"
    http = 410


class AppMismatch(CallerError):
    """A session runs one app. Open another session for another app."""

    code = "APP_MISMATCH"


class VersionMismatch(CallerError):
    """A session stays with the version of the app that it was opened with."""

    code = "VERSION_MISMATCH"


class WorkerLeased(CallerError):
    """The worker is leased to a session. Name another one, or wait until that session is over."""

    code = "WORKER_LEASED"
    http = 409


class AppFailed(StokerError):
    """Task failed"""

    code = "app_failed"
    http = 200


class ModelFailed(AppFailed):
    """The app that answers for the model failed."""

    code = "model_failed"
    http = 502


class NoCapacity(StokerError):
    """No worker can take the task now. Wait, or add a worker."""

    code = "no_capacity"
    http = 503
    retryable = True


class QueueFull(NoCapacity):
    """As many tasks wait as may. Try again when some have started, or add a worker."""

    code = "queue_full"


class QueueTimeout(NoCapacity):
    """The task waited as long as it may and was not started. Run it again, or let it wait longer."""

    code = "queue_timeout"


class NoMatchTimeout(NoCapacity):
    """No worker that could run the task came. Add one, or change what the task asks for."""

    code = "no_match_timeout"


class WorkerLost(StokerError):
    """The worker that held the session was lost, and the session's memory with it. Open a new session."""

    code = "worker_lost"
    http = 500


class StaleAttempt(StokerError):
    """Another attempt owns the task. Stop this one and drop what it has."""

    code = "stale_attempt"
    http = 409


class ProtocolRefusal(StokerError):
    """A script refused a write; `refusal` says why."""

    code = "protocol_refusal"
    http = 409

    def __init__(self, refusal: str, message: str = "", **fields: object) -> None:
        self.refusal = refusal
        super().__init__(message or f"refused: {refusal}", **fields)


class ScriptFailed(StokerError):
    """A script met something in Redis that it cannot work with. The log says what; please report it."""

    code = "internal_error"
    http = 500


class StoreUnavailable(StokerError):
    """Redis does not answer. Try again in a moment."""

    code = "store_unavailable"
    http = 503
    retryable = True


class FilesUnavailable(StokerError):
    """The file store does not answer. Try again in a moment."""

    code = "files_unavailable"
    http = 503
    retryable = True


class SecretUnreadable(StokerError):
    """A stored secret cannot be decrypted. Give the gateway the key that it was encrypted with, or set it anew."""

    code = "secret_unreadable"
    http = 500


class Bug(StokerError):
    """An error of Stoker itself. Please report it with the log line that carries this request id."""

    code = "internal_error"
