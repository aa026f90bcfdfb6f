"""Which failures another attempt may not meet, and whose fault they are."""

import pytest

from stoker.core.errors import NoCapacity, WorkerLost
from stoker_worker.environment import build_error
from stoker_worker.instance_errors import (
    AppError,
    DeviceLost,
    InputError,
    InstanceFailed,
    InstanceLost,
    InstanceNotStarted,
    InstanceTimeout,
    OutOfGpuMemory,
)
from stoker_worker.outcomes import (
    ERROR_CHARS,
    InputFileFailed,
    LoadTimeout,
    OutputFileMissing,
    PreparationFailed,
    PreparationHindered,
    UploadFailed,
    failure_outcome,
)
from stoker_worker.pythons import PythonMissing, PythonUnreachable

pytestmark = pytest.mark.unit

NETWORK = "It cannot be built. The package index (or the address) cannot be reached from the worker's machine: check its network, its proxy and the setting package_indexes."


def judged(error, **how):
    outcome = failure_outcome(error, load_s=0, run_s=0, **how)
    return outcome.retryable, outcome.kills, outcome.at_fault


@pytest.mark.parametrize(
    ("error", "expected"),
    [  # tried again, killed, the worker's fault
        (InstanceLost("ended with SIGKILL", -9), (True, True, True)),
        (InstanceLost("ended with SIGSEGV", -11), (True, True, True)),
        (
            InstanceFailed("ended with SIGKILL (while it did: setup)", "setup", killed=True),
            (True, True, True),
        ),
        (PreparationHindered("the gateway cannot be reached"), (True, False, True)),
        (InstanceNotStarted("no memory for another process", "start"), (True, False, True)),
        (build_error(NETWORK), (True, False, True)),
        (PythonUnreachable("no network"), (True, False, True)),
        (OSError("too many open files"), (True, False, True)),
        (NoCapacity("the worker has no room"), (True, False, False)),
        (OutOfGpuMemory("CUDA out of memory"), (True, False, False)),
        (DeviceLost("GPU 0 is lost"), (True, False, True)),
        (InstanceLost("ended with exit code 3", 3), (False, False, False)),
        (InstanceLost("sent something that is no message"), (False, False, False)),
        (InstanceFailed("weights are missing", "setup"), (False, False, False)),
        (AppError("no"), (False, False, False)),
        (InputError("wrong"), (False, False, False)),
        (InstanceTimeout("too long"), (False, False, False)),
        (LoadTimeout("too long"), (False, False, False)),
        (build_error("There is no such package."), (False, False, False)),
        (PreparationFailed("the code was removed"), (False, False, False)),
        (PythonMissing("no 3.13"), (False, False, False)),
        (InputFileFailed("input.image: 404"), (False, False, False)),
        (OutputFileMissing("gone"), (False, False, False)),
        (UploadFailed("the function has run: its effects must not happen twice"), (False, False, False)),
        (WorkerLost(), (False, False, False)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_is_tried_again(error, expected):
    assert judged(error) == expected


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (AppError("a flaky service"), True),
        (InstanceFailed("a flaky download", "setup"), True),
        (InstanceLost("ended with exit code 3", 3), True),
        (InstanceTimeout("hangs now and then"), True),
        (InputError("wrong"), False),
        (UploadFailed("no"), False),
        (InputFileFailed("404"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_app_may_ask_that_its_own_errors_are_tried_again(error, again):
    assert judged(error, retry_app_errors=True) == (again, False, False)


def test_a_very_long_error_is_cut_with_a_mark():
    outcome = failure_outcome(AppError("x" * (ERROR_CHARS + 5)), load_s=0, run_s=0)
    assert outcome.error == "x" * ERROR_CHARS + " ... (5 more characters)"
