"""Numbers and times as `stoker top` writes them, and texts of others made safe for a terminal."""

from datetime import UTC, datetime
from typing import Any, Final

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def duration(seconds: float) -> str:
    """Two figures at most: `8 s`, `4 min`, `2 h 5 min`, `3 d`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d"


def since(at: Any, now: datetime) -> str:
    """How long ago a time of the gateway was; "" when it is none."""
    moment = time_of(at)
    return duration((now - moment).total_seconds()) if moment else ""


def time_of(at: Any) -> datetime | None:
    """A time as the gateway writes it."""
    try:
        moment = datetime.fromisoformat(str(at))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def gigabytes(size: float) -> str:
    """`61.2`, and without a fraction from 100 on."""
    return f"{size / 1e9:.0f}" if size >= 99.95e9 else f"{size / 1e9:.1f}"


def number(value: Any) -> float | None:
    """A number, None for everything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def clean(value: Any) -> str:
    """A text without what a terminal would act upon: names of apps and devices come from elsewhere."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
