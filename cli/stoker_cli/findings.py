"""What `stoker doctor` says of one thing that it looked at."""

from enum import StrEnum

from msgspec import Struct


class Verdict(StrEnum):
    """What a finding means for running Stoker here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `advice` says what to do, if anything."""

    name: str
    verdict: Verdict
    text: str
    advice: str = ""
