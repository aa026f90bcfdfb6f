"""Rules for inf.yml. Each is a function of the document; all forms that apps of the platform use are accepted."""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from stoker import manifest
from stoker.core.errors import InvalidRequest, StokerError
from stoker.core.messages import GpuType
from stoker.core.refs import parse_ref
from stoker.core.requirements import check_name
from stoker.manifest import FILE_NAME, BadManifest, Manifest
from stoker_cli.checks.document import Document
from stoker_cli.checks.findings import Finding, error, warning
from stoker_worker.nodes import is_node
from stoker_worker.pythons import version_of

KNOWN: Final = frozenset(
    [
        "name",
        "namespace",
        "title",
        "description",
        "category",
        "kernel",
        "images",
        "metadata",
        "env",
        "resources",
        "secrets",
        "integrations",
        "functions",
        "default_function",
        "timeouts",
        "retry",
        "keep_alive",
    ]
)
OLDER: Final = {
    "requirements": "write secrets and integrations at the top",
    "python": "write kernel: python-3.11",
    "is_public": "deploy with --public",
}
NOT_USED: Final = {
    "variants": "variants are not used: every task runs the default one",
    "credentials": "no accounts are connected here: what they would provide must be set as secrets",
    "integrations": "no accounts are connected here: what they would provide must be set as secrets",
}
CATEGORIES: Final = frozenset(
    ["image", "video", "audio", "text", "chat", "3d", "other", "flow", "social", "multimodal", "utilities"]
)
DESCRIPTION_SHOWN: Final = 200
"""Characters; the platform's listing cuts there."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AMBIGUOUS: Final = range(256, 1000)


def check_text(text: str) -> tuple[list[Finding], Document | None]:
    """Everything that is wrong with an inf.yml, and the document where it is one."""
    try:
        document = Document(text)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        said = " ".join(part for part in (problem.context, problem.problem) if part)
        return [error(FILE_NAME, mark.line + 1 if mark else 0, f"no valid YAML: {said}")], None
    except (yaml.YAMLError, BadManifest) as problem:
        return [error(FILE_NAME, 0, str(problem))], None
    if not isinstance(document.value, dict):
        kind = "nothing" if document.value is None else f"a {type(document.value).__name__}"
        return [error(FILE_NAME, 1, f"must hold a mapping (name: ..., kernel: ...), found {kind}")], None
    findings = [finding for rule in RULES for finding in rule(document)]
    return sorted(findings, key=lambda finding: finding.line), document


def check_parsed(document: Document) -> tuple[Manifest | None, list[Finding]]:
    """The manifest, as everything else reads it; nothing gets past that reader that it refuses."""
    try:
        return manifest.parse(document.value), []
    except BadManifest as problem:
        return None, [error(FILE_NAME, 0, problem.message)]


def _keys(doc: Document) -> Iterator[Finding]:
    for name, line in doc.repeated:
        yield warning(FILE_NAME, line, f"{name!r} is written twice; the last one counts")
    for key in doc.value:
        name, line = str(key), doc.line(str(key))
        if name in OLDER:
            yield warning(FILE_NAME, line, f"{name} is an older form that is still read; {OLDER[name]}")
        if name in NOT_USED and doc.get(name):
            yield warning(FILE_NAME, line, NOT_USED[name])
        elif name not in KNOWN and name not in OLDER and name not in NOT_USED:
            yield warning(FILE_NAME, line, _unknown(name, KNOWN))


def _unknown(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"the key {name!r} is unknown and ignored" + (f"; did you mean {near[0]!r}?" if near else "")


def _only(doc: Document, known: frozenset[str], *path: str | int) -> Iterator[Finding]:
    """Warn of the keys of a mapping that nobody reads."""
    found = doc.get(*path)
    for key in found if isinstance(found, dict) else ():
        if str(key) not in known:
            yield warning(FILE_NAME, doc.line(*path, str(key)), _unknown(str(key), known))


def _name(doc: Document) -> Iterator[Finding]:
    for key, needed in (("name", True), ("namespace", False)):
        value = doc.get(key)
        line = doc.line(key)
        if value in (None, ""):
            if needed:
                yield error(FILE_NAME, line, f"{key} is missing: say what the app is called")
            continue
        if not isinstance(value, str):
            yield warning(FILE_NAME, line, f"{key} is read as {str(value)!r}; write it in quotes")
        try:
            parse_ref(str(value))
        except InvalidRequest:
            yield error(
                FILE_NAME,
                line,
                f"{key} {value!r} cannot stand in a reference: it must be of a-z, 0-9, '.', '_', '-' and start with "
                "a letter or digit",
            )
        else:
            if any(mark in str(value) for mark in "/@:"):
                yield error(FILE_NAME, line, f"{key} {value!r} must not hold '/', '@' or ':'")


def _texts(doc: Document) -> Iterator[Finding]:
    text = doc.get("description")
    if not text:
        yield warning(
            FILE_NAME, doc.line("description"), "description is missing: one line that says what it does"
        )
    elif len(str(text)) > DESCRIPTION_SHOWN:
        yield warning(
            FILE_NAME,
            doc.line("description"),
            f"description has {len(str(text))} characters; lists show {DESCRIPTION_SHOWN}",
        )
    category = doc.get("category")
    if category and category not in CATEGORIES:
        yield warning(
            FILE_NAME,
            doc.line("category"),
            f"category {category!r} is none of {', '.join(sorted(CATEGORIES))}",
        )
    for key in ("images", "metadata"):
        if doc.get(key) is not None and not isinstance(doc.get(key), dict):
            yield error(FILE_NAME, doc.line(key), f"{key} must be a mapping, found {_shown(doc.get(key))}")
    yield from _only(doc, frozenset({"card", "thumbnail", "banner"}), "images")


def _kernel(doc: Document) -> Iterator[Finding]:
    key = "kernel" if doc.has("kernel") else "python"
    value = doc.get(key)
    if value == 3.1:
        yield warning(
            FILE_NAME, doc.line(key), f"{key}: 3.10 without quotes is the number 3.1; it is read as 3.10"
        )
    kernel = manifest.parse({"name": "x", key: value}).kernel
    try:
        if not is_node(kernel):
            version_of(kernel)
    except StokerError as problem:
        yield error(FILE_NAME, doc.line(key), problem.message)


def _env(doc: Document) -> Iterator[Finding]:
    value = doc.get("env")
    if value is None:
        return
    if not isinstance(value, dict):
        yield error(FILE_NAME, doc.line("env"), f"env must map names to texts, found {_shown(value)}")
        return
    for key, item in value.items():
        line = doc.line("env", str(key))
        if not _VARIABLE.fullmatch(str(key)):
            yield error(FILE_NAME, line, f"env: {str(key)!r} cannot be the name of a variable")
        if isinstance(item, (dict, list)):
            yield error(FILE_NAME, line, f"env: {key} must be a text, found {_shown(item)}")
        elif item is not None and not isinstance(item, str):
            read = manifest.parse({"name": "x", "env": {str(key): item}}).env.get(str(key))
            yield warning(FILE_NAME, line, f"env: {key} is read as {read!r}; write it in quotes")


def _resources(doc: Document) -> Iterator[Finding]:
    for path in (("resources",), ("resources", "gpu")):
        value = doc.get(*path)
        if value is not None and not isinstance(value, dict):
            yield error(
                FILE_NAME, doc.line(*path), f"{'.'.join(path)} must be a mapping, found {_shown(value)}"
            )
    if not doc.get("resources"):
        yield warning(
            FILE_NAME, doc.line("resources"), "resources is missing: read as no GPU and memory unknown"
        )
    yield from _only(doc, frozenset({"gpu", "ram"}), "resources")
    yield from _only(doc, frozenset({"count", "vram", "type"}), "resources", "gpu")
    for path in (("gpu", "count"), ("gpu", "vram"), ("ram",)):
        yield from _size(doc, ("resources", *path))
    yield from _gpu(doc)


def _size(doc: Document, path: tuple[str, ...]) -> Iterator[Finding]:
    value, name, line = doc.get(*path), ".".join(path), doc.line(*path)
    resources: dict[str, Any] = {"ram": value}
    if path[1] == "gpu":
        resources = {"gpu": {"count": 1} | {path[-1]: value}}
    try:
        needs = manifest.parse({"name": "x", "resources": resources}).needs
    except BadManifest as problem:
        yield error(FILE_NAME, line, problem.message.removeprefix(f"'{FILE_NAME}': "))
        return
    size = needs.ram_bytes or needs.vram_bytes
    if path[-1] == "count" or not isinstance(value, int) or not 0 < value < 1_000_000:
        return
    unsure = " (the platform's text would read it as GB)" if value in _AMBIGUOUS else ""
    yield warning(
        FILE_NAME,
        line,
        f"{name}: {value} is read as {size / 1e9:g} GB{unsure}; write bytes or a unit: {size}",
    )


def _gpu(doc: Document) -> Iterator[Finding]:
    count, vram, kind = (doc.get("resources", "gpu", key) for key in ("count", "vram", "type"))
    line = doc.line("resources", "gpu")
    known = [member.value for member in GpuType]
    if kind and str(kind).lower() not in known:
        line = doc.line("resources", "gpu", "type")
        yield warning(
            FILE_NAME, line, f"resources.gpu.type {kind!r} is read as any; known: {', '.join(known)}"
        )
    if count and str(kind).lower() == "none":
        yield warning(FILE_NAME, line, f"resources.gpu: count {count} decides, although type says none")
    if count and not vram:
        yield warning(
            FILE_NAME,
            line,
            "resources.gpu.vram is not stated: the first run on a GPU measures what is needed",
        )
    if not count and vram:
        yield warning(FILE_NAME, line, f"resources.gpu: vram {vram} without a count asks for no GPU")


def _requirement_lists(doc: Document) -> Iterator[Finding]:
    for path in (
        ("secrets",),
        ("integrations",),
        ("requirements", "secrets"),
        ("requirements", "integrations"),
    ):
        yield from _entries(doc, path)
    functions = doc.get("functions")
    if functions is not None and not isinstance(functions, list):
        yield error(FILE_NAME, doc.line("functions"), f"functions must be a list, found {_shown(functions)}")
        return
    for index, entry in enumerate(functions or ()):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            yield error(FILE_NAME, doc.line("functions", index), f"functions[{index}] needs a name")


def _entries(doc: Document, path: tuple[str, ...]) -> Iterator[Finding]:
    value, name = doc.get(*path), ".".join(path)
    if value is None:
        return
    if not isinstance(value, list):
        yield error(
            FILE_NAME, doc.line(*path), f"{name} must be a list of maps with a key, found {_shown(value)}"
        )
        return
    seen: set[str] = set()
    for index, entry in enumerate(value):
        line = doc.line(*path, index)
        key = entry.get("key") if isinstance(entry, dict) else entry
        if not isinstance(key, str) or not key:
            yield error(FILE_NAME, line, f"{name}[{index}] needs a key, found {_shown(entry)}")
            continue
        if path[-1] == "secrets":
            try:
                check_name(key, name)
            except InvalidRequest as problem:
                yield error(FILE_NAME, line, problem.message.removeprefix("Input validation failed: "))
        if key in seen:
            yield warning(FILE_NAME, line, f"{name}: {key} is named twice")
        seen.add(key)
        known = {"key", "description", "optional"} | (
            {"secrets", "scopes"} if path[-1] != "secrets" else set()
        )
        yield from _only(doc, frozenset(known), *path, index)


def _shown(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


RULES: Final[tuple[Callable[[Document], Iterator[Finding]], ...]] = (
    _keys,
    _name,
    _texts,
    _kernel,
    _env,
    _resources,
    _requirement_lists,
)
