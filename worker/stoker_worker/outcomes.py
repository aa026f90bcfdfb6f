"""How what went wrong becomes the end of a task: one row a kind of failure. Pure."""

from typing import Final

import msgspec

from stoker.core.errors import NoCapacity, StokerError, TooLarge
from stoker.core.messages import Outcome
from stoker.core.states import TaskState
from stoker_worker.instance_errors import (
    AppError,
    InputError,
    InstanceFailed,
    InstanceLost,
    InstanceTimeout,
    OutOfGpuMemory,
    limit_set_by,
)
from stoker_worker.logs import shortened

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""A result lies in Redis and in every answer of the gateway; larger data belongs into files."""
MAX_META_BYTES: Final = 1024 * 1024
"""What an app says about its output (tokens, sizes) lies beside it."""
ERROR_CHARS: Final = 16 * 1024
"""An error is read by people, in lists too; the task's log has all that the app printed."""


class PreparationFailed(StokerError):
    """The app's code or environment could not be brought to this machine."""

    code = "preparation_failed"


class PreparationHindered(PreparationFailed):
    """As above, and not for the app's sake: the gateway did not answer, or the disk is full."""

    retryable = True


class LoadTimeout(StokerError):
    """The app was not ready in time."""

    code = "setup_timeout"

    @classmethod
    def after(cls, limit_s: float) -> "LoadTimeout":
        """With how long it had, and where more is allowed."""
        together = "preparing, start and setup together"
        return cls(f"The app was not ready within {limit_s:g} s, {together} ({limit_set_by('setup')}).")


class InputFileFailed(StokerError):
    """A file of the input could not be had."""

    code = "input_file_failed"


class OutputFileMissing(StokerError):
    """The result names a file that does not exist."""

    code = "output_file_missing"


class OutputFileUnreadable(StokerError):
    """The result names something that cannot be read as a file: a directory, or a file that went away."""

    code = "output_file_unreadable"


class UploadTimeout(StokerError):
    """The files of the result were not stored in time."""

    code = "upload_timeout"


class UploadFailed(StokerError):
    """A file of the result could not be stored."""

    code = "upload_failed"


class OutputTooLarge(TooLarge):
    """The result is larger than a task may return."""

    code = "output_too_large"


def failure_outcome(
    error: Exception, *, load_s: float, run_s: float, retry_app_errors: bool = False
) -> Outcome:
    """The outcome of an attempt that `error` ended; the app's own words where it had some.

    Another attempt may end otherwise when the machine, its surroundings or a signal ended this one. What the app
    says itself it would say again; it is tried again where somebody asks for that.
    """
    kills = isinstance(error, (InstanceLost, InstanceFailed)) and error.killed
    hindered = kills or not isinstance(error, StokerError) or error.retryable
    by_app = isinstance(error, (AppError, InstanceFailed, InstanceLost, InstanceTimeout))
    short = error if isinstance(error, OutOfGpuMemory) else None
    if isinstance(error, StokerError):
        text, code = error.message, error.code
    else:
        text = f"The worker failed on this task ({type(error).__name__}: {error}). Please report it."
        code = "internal_error"
    return Outcome(
        state=TaskState.FAILED,
        error=shortened(text, ERROR_CHARS) or "Task failed",
        error_code=code,
        load_s=load_s,
        run_s=run_s,
        vram_bytes=short.peak_bytes if short else 0,
        vram_short=short.needed_bytes if short else 0,
        retryable=hindered or (retry_app_errors and by_app),
        kills=kills,
        at_fault=hindered and not isinstance(error, (NoCapacity, OutOfGpuMemory)),
    )


def instance_is_broken(error: Exception) -> bool:
    """Whether a failed run leaves an instance that nobody may use again."""
    return not isinstance(error, (AppError, InputError))


def encode_output(output: object) -> msgspec.Raw:
    """The result as JSON.

    Raises:
        OutputTooLarge: above `MAX_OUTPUT_BYTES`.
    """
    raw = msgspec.json.encode(output)
    if len(raw) > MAX_OUTPUT_BYTES:
        size = _over(raw, MAX_OUTPUT_BYTES)
        raise OutputTooLarge(f"The result is {size} can be returned. Return large data as a File.")
    return msgspec.Raw(raw)


def checked_meta(meta: bytes) -> msgspec.Raw:
    """What the app says about its result, as JSON.

    Raises:
        OutputTooLarge: above `MAX_META_BYTES`.
    """
    if len(meta) > MAX_META_BYTES:
        raise OutputTooLarge(f"output_meta is {_over(meta, MAX_META_BYTES)} can be returned.")
    return msgspec.Raw(meta)


def partial_refusal(output: bytes) -> str:
    """Why a partial output is not shown; empty where it is."""
    if len(output) <= MAX_OUTPUT_BYTES:
        return ""
    size = _over(output, MAX_OUTPUT_BYTES)
    return f"A partial output is {size} are shown, so it is left out. Return large data as a File."


def _over(data: bytes, limit: int) -> str:
    return f"{len(data) / 1024**2:.1f} MB of JSON; at most {limit // 1024**2} MB"
