import pytest

from stoker.core.messages import StoredFile
from stoker.core.states import TaskState as S
from stoker.protocol.files import Standing
from stoker_jobs.file_sweep import ABANDONED_MS, is_over

NOW = 10 * ABANDONED_MS


def file(role="", attempt=0, uploaded=True, age_ms=0, good_for_ms=0):
    return StoredFile(
        id="f", secret="s", owner_id="u", filename="f", content_type="", size=1, created_ms=NOW - age_ms,
        role=role, attempt=attempt, uploaded=uploaded, task_id="t" if role else "",
        upload_until_ms=NOW - age_ms + good_for_ms,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "standing", "expected"),
    [
        (file(age_ms=9 * ABANDONED_MS), None, False),
        (file(uploaded=False, age_ms=ABANDONED_MS - 1), None, False),
        (file(uploaded=False, age_ms=ABANDONED_MS + 1), None, True),
        (file(uploaded=False, age_ms=4 * ABANDONED_MS, good_for_ms=3 * ABANDONED_MS), None, False),
        (file(uploaded=False, age_ms=4 * ABANDONED_MS + 1, good_for_ms=3 * ABANDONED_MS), None, True),
        (file("output", 1), None, True),
        (file("output", 1), (S.COMPLETED, 1), False),
        (file("output", 1, uploaded=False), (S.COMPLETED, 1), True),
        (file("output", 1), (S.COMPLETED, 2), True),
        (file("output", 1), (S.RUNNING, 2), True),
        (file("output", 1), (S.QUEUED, 1), False),
        (file("output", 1, uploaded=False), (S.UPLOADING, 1), False),
        (file("output", 1), (S.UPLOADING, 1), False),
        (file("output", 1), (S.FAILED, 1), True),
        (file("output", 1), (S.CANCELLED, 1), True),
    ],
)
def test_what_is_over(given, standing, expected):
    assert is_over(given, Standing(*standing) if standing else None, NOW) is expected
