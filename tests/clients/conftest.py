"""Systems that the outside clients talk to, with the example apps on them."""

import tempfile
from pathlib import Path

import pytest
from helpers import EXAMPLES, running_system


@pytest.fixture(scope="session")
def system_with_apps():
    """A system with the light example apps, which repeats the task on a quiet stream every second."""
    with (
        tempfile.TemporaryDirectory(prefix="stoker clients ", ignore_cleanup_errors=True) as folder,
        running_system(Path(folder) / "data", "--workers", "2", STOKER_RESEND_S="1") as running,
    ):
        running.deploy(EXAMPLES / "echo")
        running.deploy(EXAMPLES / "slow")
        yield running


@pytest.fixture(scope="session")
def system_with_ocr(system_with_apps):
    """The same with the OCR app: its environment is large."""
    system_with_apps.deploy(EXAMPLES / "ocr")
    return system_with_apps
