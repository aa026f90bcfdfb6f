"""What this machine's clock says. What must agree with other machines is dated by the server instead (`Store.now_ms`)."""

import time


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
