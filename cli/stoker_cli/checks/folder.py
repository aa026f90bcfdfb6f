"""All checks of one app's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker.bundles import DEFAULT_LIMITS, Limits
from stoker.core.errors import StokerError
from stoker.manifest import DEFAULT_FUNCTION, FILE_NAME, MAX_BYTES, Manifest
from stoker_cli.checks.code import ENTRY_FILE, check_code
from stoker_cli.checks.document import Document
from stoker_cli.checks.findings import Finding, Severity, error
from stoker_cli.checks.manifest import check_parsed, check_text
from stoker_cli.packing import Listing, list_files
from stoker_worker.nodes import is_node
from stoker_worker.pythons import version_of

NODE_FILES: Final = ("inference.js", "src/inference.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the checks found. `app` is there when inf.yml can be used at all."""

    folder: Path
    findings: tuple[Finding, ...]
    app: Manifest | None
    listing: Listing

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)


def check_folder(folder: Path, limits: Limits = DEFAULT_LIMITS) -> Report:
    """Look at inf.yml, at the code and at the files of an app.

    Raises:
        OSError: the folder cannot be read.
    """
    listing = list_files(folder, limits)
    findings = [error(problem.name, 0, problem.text) for problem in listing.problems]
    found, document, app = _manifest(folder)
    findings += found
    findings += _code(folder, app, document)
    return Report(folder=folder, findings=tuple(findings), app=app, listing=listing)


def _manifest(folder: Path) -> tuple[list[Finding], Document | None, Manifest | None]:
    try:
        raw = (folder / FILE_NAME).read_bytes()[: MAX_BYTES + 1]
        text = raw.decode("utf-8-sig")
    except OSError as problem:
        return [error(FILE_NAME, 0, f"cannot be read: {problem.strerror}")], None, None
    except UnicodeDecodeError as problem:
        line = raw[: problem.start].count(b"\n") + 1
        return [error(FILE_NAME, line, "is not UTF-8")], None, None
    if len(raw) > MAX_BYTES:
        return [error(FILE_NAME, 0, f"is larger than {MAX_BYTES} bytes")], None, None
    findings, document = check_text(text)
    if document is None:
        return findings, None, None
    app, refused = check_parsed(document)
    if not any(finding.severity is Severity.ERROR for finding in findings):
        findings += refused  # else it says the same again, without a line
    return findings, document, app


def _code(folder: Path, app: Manifest | None, document: Document | None) -> list[Finding]:
    if app is not None and is_node(app.kernel):
        found = any((folder / name).is_file() for name in NODE_FILES)
        return [] if found else [error(NODE_FILES[0], 0, f"is missing (or {' or '.join(NODE_FILES[1:])})")]
    try:
        python = version_of(app.kernel if app else "")
    except StokerError:
        return []  # told with the kernel's line
    try:
        source = (folder / ENTRY_FILE).read_bytes()
    except OSError as problem:
        return [error(ENTRY_FILE, 0, f"cannot be read: {problem.strerror}")]
    code = check_code(folder, source, python)
    findings = list(code.findings)
    if app is None or document is None or not code.functions:
        return findings
    known = ", ".join(sorted(code.functions))
    if app.default_function != DEFAULT_FUNCTION and app.default_function not in code.functions:
        line = document.line("default_function")
        findings.append(
            error(
                FILE_NAME,
                line,
                f"default_function {app.default_function!r} is no function of App; it has {known}",
            )
        )
    listed = document.get("functions")
    for index, entry in enumerate(listed if isinstance(listed, list) else ()):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name not in code.functions:
            line = document.line("functions", index)
            findings.append(
                error(FILE_NAME, line, f"functions: {name!r} is no function of App; it has {known}")
            )
    return findings
