"""How an instance fails: what the app says, that it takes too long, that its process ends."""

from typing import Literal

from stoker.core.errors import AppFailed, StokerError


def limit_set_by(step: Literal["setup", "run", "upload"]) -> str:
    """Where somebody allows more time for a step: STOKER_SETUP_TIMEOUT_S, STOKER_RUN_TIMEOUT_S and so on."""
    return f"timeouts.{step} of the request or of inf.yml, STOKER_{step.upper()}_TIMEOUT_S"


class AppError(AppFailed):
    """The app's function failed. `vram_short`: because GPU memory ran out."""

    def __init__(self, message: str = "", *, vram_short: bool = False) -> None:
        super().__init__(message)
        self.vram_short = vram_short


class InputError(AppFailed):
    """The input does not fit the function.

    `fields` are (path, message).
    """

    code = "invalid_input"

    def __init__(self, message: str = "", fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.input_fields = fields


class InstanceFailed(StokerError):
    """The app could not be imported or set up.

    `vram_short`: because GPU memory ran out.
    """

    code = "setup_failed"

    def __init__(
        self, message: str = "", phase: str = "", *, killed: bool = False, vram_short: bool = False
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.killed = killed
        self.vram_short = vram_short


class InstanceNotStarted(InstanceFailed):
    """The machine has no room for another process."""

    retryable = True


class OutOfGpuMemory(StokerError):
    """The GPU memory that was left for the app was not enough.

    `peak_bytes` is what it had; `needed_bytes` what the next instance of its setup is counted with.
    """

    code = "gpu_out_of_memory"
    retryable = True

    def __init__(self, message: str = "", *, peak_bytes: int = 0, needed_bytes: int = 0) -> None:
        super().__init__(message)
        self.peak_bytes = peak_bytes
        self.needed_bytes = needed_bytes


class DeviceLost(StokerError):
    """A GPU of the worker was lost under the app."""

    code = "gpu_lost"
    retryable = True


class InstanceTimeout(StokerError):
    """The app took longer than it may."""


class SetupTimeout(InstanceTimeout):
    """The app's setup took longer than it may."""

    code = "setup_timeout"


class RunTimeout(InstanceTimeout):
    """The app took longer for one task than it may."""

    code = "run_timeout"


class InstanceLost(StokerError):
    """The app's process ended by itself, or was killed.

    `returncode`: None when it had to be ended, because it sent nonsense.
    """

    code = "app_crashed"

    def __init__(self, message: str = "", returncode: int | None = None, *, vram_short: bool = False) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.vram_short = vram_short

    @property
    def killed(self) -> bool:
        """Whether a signal ended it: the machine's, somebody's, or of a fault in its memory."""
        return self.returncode is not None and self.returncode < 0
