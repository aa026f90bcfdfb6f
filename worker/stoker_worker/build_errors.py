"""What the output of a failed installer means: its essential line, and the hint that helps. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_CHARS: Final = 600
"""Of the essential line; a conflict among many packages is told over pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Why an installation failed: one line of the installer's own, and what to do. Both may be empty."""

    essential: str
    hint: str


_DISK_HINT: Final = "The disk is full: free some space, or lower cache_max_bytes."
_NETWORK_HINT: Final = (
    "The package index (or the address) cannot be reached from the worker's machine: check its network, "
    "its proxy and the setting package_indexes."
)
_KILLED_HINT: Final = "Somebody killed it, or the system did for want of memory."
# The first that matches counts: what is more special comes first.
_HINTS: Final[tuple[tuple[str, str], ...]] = (
    (r"No space left on device|ENOSPC", _DISK_HINT),
    (
        r"Git executable not found|spawn git|git: not found|syscall spawn git",
        "It needs git on the worker's machine: apt install git.",
    ),
    (
        (
            r"(?:[Cc]ommand |No such file or directory: )'?\[?'?\S*(?:gcc|g\+\+|\bcc\b|c\+\+|clang|make|ninja|cmake|rustc|cargo)"
            r".*(?:No such file|not found)|unable to execute '\S*(?:gcc|g\+\+|cc)'"
            r"|No such file or directory: '\S*(?:gcc|g\+\+|clang|/cc|make|ninja|cmake)'"
            r"|No CMAKE_C(?:XX)?_COMPILER could be found|command not found: (?:gcc|cc|make)|not found: make"
            r"|Rust toolchain|can't find Rust compiler|stack Error: not found: make"
        ),
        "It is built from source and needs a compiler on the worker's machine: apt install build-essential.",
    ),
    (
        r"fatal error: Python\.h",
        "It is built from source and needs the headers of this Python: apt install python3-dev.",
    ),
    (
        r"fatal error: \S+\.h: No such file|nvcc.*not found|CUDA_HOME environment variable is not set",
        "It is built from source and needs a library's headers (with apt: the package that ends in -dev).",
    ),
    (
        (
            r"dns error|[Tt]emporary failure in name resolution|[Cc]onnection refused|ECONNREFUSED|ENOTFOUND"
            r"|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|[Nn]etwork is unreachable|operation timed out|network was disabled"
            r"|network connectivity is disabled|error sending request|Could not resolve host|Failed to connect"
            r"|tcp connect error|timed out"
        ),
        _NETWORK_HINT,
    ),
    (
        (
            r"[Aa]uthentication failed|could not read Username|401 Unauthorized|403 Forbidden|code E40[13]"
            r"|Repository not found"
        ),
        "Access was refused: the worker's machine needs credentials for this address.",
    ),
    (
        (
            r"no wheels? with a matching|no usable wheels|only found wheels for|does not satisfy Python"
            r"|Requires-Python|requires a different Python|not a supported wheel|is not compatible with the current"
        ),
        "There is no package for this Python or this platform: change the kernel in inf.yml or the version.",
    ),
    (
        (
            r"was not found in the package registry|not found in the provided package locations|code E404"
            r"|No matching distribution found"
        ),
        "No package index has it: check its name, or add its index with the setting package_indexes.",
    ),
    (
        r"there (?:is|are) no versions? of|ETARGET|only .* (?:is|are) available|No matching version",
        "This version does not exist: ask for another one.",
    ),
    (
        r"[Gg]it operation failed|failed to clone|remote: |fatal: ",
        "The git address cannot be fetched: check the address and the revision.",
    ),
    (r"File not found: |Couldn't parse requirement|EJSONPARSE", "Correct the file of the app."),
    (
        r"unsatisfiable|incompatible|ERESOLVE|conflict",
        "The requirements contradict each other: loosen one of them.",
    ),
    (
        r"[Ff]ailed to build|[Bb]uild backend|gyp ERR|code 1\b",
        "Building it from source failed; the lines above say where. A version with a wheel avoids the build.",
    ),
)
_BOX: Final = re.compile(r"^[\s\u00d7│├╰─▶>]+")
_CAUSE: Final = re.compile(r"^\s*(?:cause:|Caused by:|[├╰]─▶|╰▶)\s*")
_UV_HEAD: Final = re.compile(r"^\s*(?:error:|\u00d7)\s*")
_NPM: Final = re.compile(r"^npm (?:error|ERR!)\s?")
_NPM_NOISE: Final = re.compile(
    r"^(?:code \w+|\d{3}\s*$|errno|syscall|path |.*complete log of this run|.*debug-\d+\.log|A complete log"
    r"|\d{3} Note|\d{3} tarball|\d{3} '|at |\s*$)"
)
_COMPILER: Final = re.compile(r"\b(?:fatal )?error: .+|[A-Za-z]*Error: .+|CMake Error.*|error\[E\d+\]: .+")
_UNREAL: Final = re.compile(r"subprocess-exited-with-error|Failed to build|metadata-generation-failed")


def explain(lines: Sequence[str]) -> Explained:
    """The essential line of an installer's output (uv, pip, npm), and a hint.

    Args:
        lines: what it printed last, in order.
    """
    text = "\n".join(lines)
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")
    essential = _of_npm(lines) if any(_NPM.match(line) for line in lines) else _of_uv(lines)
    return Explained(essential=_cut(essential or _last(lines)), hint=hint)


def killed(signal_name: str) -> Explained:
    """What is said of an installer that a signal ended, whatever it had printed."""
    return Explained(essential=f"{signal_name} ended it", hint=_KILLED_HINT)


def may_pass(text: str) -> bool:
    """Whether the error of a build, with its hint, speaks of the machine: it may go well later, or elsewhere."""
    return any(hint in text for hint in (_DISK_HINT, _NETWORK_HINT, _KILLED_HINT))


def _of_npm(lines: Sequence[str]) -> str:
    told = [_NPM.sub("", line).strip() for line in lines if _NPM.match(line)]
    real = [line for line in told if not _NPM_NOISE.match(line)]
    return re.sub(r"^(?:\d{3}|notarget|network|enoent)\s+", "", real[0]) if real else " ".join(told[:2])


def _of_uv(lines: Sequence[str]) -> str:
    """The head of the last error with its causes; of a build, the line that the build itself complained with."""
    starts = [number for number, line in enumerate(lines) if _UV_HEAD.match(line)]
    if not starts:
        return ""
    first = next((n for n in starts if not lines[n].startswith(" ")), starts[-1])
    block = lines[first:]
    head = _UV_HEAD.sub("", block[0]).strip()
    causes = _causes(block[1:])
    if "ailed to build" in head or any("build backend" in cause for cause in causes):
        return _joined([head, _complaint(block) or (causes[-1] if causes else "")])
    if len(causes) > 2:
        causes = [causes[0], causes[-1]]  # between them stand the layers of a network library
    return _joined([head, *causes])


def _causes(block: Sequence[str]) -> list[str]:
    causes: list[str] = []
    for line in block:
        if not line.strip() or line.startswith("hint:"):
            break
        if _CAUSE.match(line):
            causes.append(_CAUSE.sub("", line).strip())
        elif causes and not re.match(r"\s*(?:---|\[std)", line):
            causes[-1] = f"{causes[-1]} {_BOX.sub('', line).strip()}"
    return causes


def _complaint(block: Sequence[str]) -> str:
    """What the compiler or the build script said: the first error within the output of the build."""
    found = [match[0] for line in block[1:] if (match := _COMPILER.search(line)) and not _UNREAL.search(line)]
    return found[0].strip() if found else ""


def _joined(parts: Sequence[str]) -> str:
    kept = [part.strip() for part in parts if part.strip()]
    return ": ".join(part.rstrip(".:") if n + 1 < len(kept) else part for n, part in enumerate(kept))


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS].rstrip() + " ..."
