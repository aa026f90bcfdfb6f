"""What an engine makes of the entries of its inbox: others write them too."""

import pytest

from stoker.core.messages import CANCEL_GRACE_MAX_MS
from stoker.protocol.inbox import readable


def cancel(grace):
    return {b"k": b"cancel", b"task": b"t1", b"attempt": b"1", b"force": b"0", b"grace": grace}


@pytest.mark.parametrize(
    ("grace", "taken_ms"),
    [
        (b"500", 500),
        (b"-5", 0),
        (b"1" + b"0" * 400, CANCEL_GRACE_MAX_MS),
        (b"-1" + b"0" * 400, 0),
    ],
)
def test_a_cancel_waits_no_longer_than_a_timer_can(grace, taken_ms):
    assert readable("box", cancel(grace)).grace_ms == taken_ms


def test_a_cancel_whose_grace_is_no_number_is_dropped():
    assert readable("box", cancel(b"soon")) is None
