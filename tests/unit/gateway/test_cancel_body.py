"""How long a caller may have a cancelled task go on."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.core.messages import CANCEL_GRACE_MAX_MS
from stoker_gateway.app import decode
from stoker_gateway.routes.tasks import CancelBody


def timeout(text):
    return decode(b'{"timeout": %b}' % text.encode(), CancelBody).timeout


@pytest.mark.parametrize("text", ["-1", str(CANCEL_GRACE_MAX_MS + 1), "1" + "0" * 400, "1" + "0" * 5000])
def test_a_timeout_beyond_the_bounds_is_refused_by_its_name(text):
    with pytest.raises(InvalidRequest, match="Input validation failed: timeout"):
        timeout(text)


def test_the_bounds_themselves_are_taken():
    assert [timeout(text) for text in ("0", str(CANCEL_GRACE_MAX_MS), "null")] == [
        0,
        CANCEL_GRACE_MAX_MS,
        None,
    ]
