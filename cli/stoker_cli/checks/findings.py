"""One thing that a check found."""

from enum import StrEnum

from msgspec import Struct


class Severity(StrEnum):
    """An error keeps the app from being deployed, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Finding(Struct, frozen=True, kw_only=True):
    """What is wrong, where, and what to do. `line` counts from 1; 0 is the whole file."""

    severity: Severity
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.severity}: {self.message}"


def error(file: str, line: int, message: str) -> Finding:
    return Finding(severity=Severity.ERROR, file=file, line=line, message=message)


def warning(file: str, line: int, message: str) -> Finding:
    return Finding(severity=Severity.WARNING, file=file, line=line, message=message)
