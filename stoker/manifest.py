"""Reads inf.yml: what an app is called and what it needs. Tolerant, as the platform's own apps require."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from stoker.core.errors import CallerError
from stoker.core.limits import BadLimit, Retry, Timeouts, read_keep_alive, read_retry, read_timeouts
from stoker.core.messages import GpuType, IntegrationNeed, Needs, SecretNeed

T = TypeVar("T")

FILE_NAME: Final = "inf.yml"
DEFAULT_FUNCTION: Final = "run"
MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 20_000
"""Of a file, with what aliases repeat: a few lines of YAML can stand for gigabytes."""
_GB: Final = 1000**3
_MB: Final = 1000**2
_UNITS: Final = {"": 1, "k": 1000, "m": _MB, "g": _GB, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>(?:[kmg]i?)?)b?", re.IGNORECASE)
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BadManifest(CallerError):
    """The app's inf.yml cannot be used."""

    code = "bad_manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What inf.yml says. Sizes in `needs` are bytes, whatever unit the file used."""

    name: str
    namespace: str = ""
    description: str = ""
    category: str = "other"
    kernel: str = ""
    images: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    secrets: tuple[SecretNeed, ...] = ()
    integrations: tuple[IntegrationNeed, ...] = ()
    default_function: str = DEFAULT_FUNCTION
    title: str = ""
    public: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: Retry = field(default_factory=Retry)
    keep_alive_s: float | None = None

    @property
    def resources(self) -> dict[str, Any]:
        """`needs` in the form of inf.yml."""
        needs = self.needs
        gpu = {"count": needs.gpu_count, "vram": needs.vram_bytes, "type": needs.gpu_type.value}
        return {"gpu": gpu, "ram": needs.ram_bytes}


def load(folder: Path) -> Manifest:
    """Read the inf.yml of an app's folder.

    Raises:
        BadManifest: there is none, or it is no mapping with a name.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise BadManifest(f"'{folder}' is no app: it has no {FILE_NAME}") from None
    except OSError as error:
        raise BadManifest(f"'{path}' cannot be read: {error}") from error
    return parse_text(raw, str(path))


def parse_text(raw: bytes, source: str = FILE_NAME) -> Manifest:
    """The manifest in the bytes of an inf.yml.

    Raises:
        BadManifest: it is no YAML mapping with a name, or larger than any inf.yml.
    """
    if len(raw) > MAX_BYTES:
        raise BadManifest(f"'{source}' is larger than {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
        check_bounds(text, source)
        document = yaml.load(text, Loader=LOADER)  # noqa: S506 - a safe one
    except UnicodeDecodeError as error:
        raise BadManifest(f"'{source}' cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadManifest(f"'{source}' is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise BadManifest(f"'{source}' must hold a mapping, found {type(document).__name__}")
    return parse(document, source)


def check_bounds(text: str, source: str = FILE_NAME) -> None:
    """Refuse a file that would be much larger in memory than it is.

    Raises:
        BadManifest: nested too deep, or too many values with what aliases repeat.
        yaml.YAMLError: it is no YAML.
    """
    depth = total = 0
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
            open_.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.events.AliasEvent):
            total += sizes.get(event.anchor or "", MAX_VALUES)  # one inside of what it names has no end
        elif isinstance(event, yaml.events.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if depth > MAX_DEPTH or total > MAX_VALUES:
            raise BadManifest(
                f"'{source}' holds more than {MAX_VALUES} values or is nested deeper than {MAX_DEPTH}"
            )


def parse(document: dict[str, Any], source: str = FILE_NAME) -> Manifest:
    """The manifest in a parsed inf.yml.

    Raises:
        BadManifest: it has no name, a size is no number, or a time limit or retry rule is none.
    """
    name = _text(document.get("name"))
    if not name:
        raise BadManifest(f"'{source}' has no name")
    older = _mapping(document.get("requirements"))  # where they stood before
    variant = _mapping(_mapping(document.get("variants")).get("default"))  # an older form, served as it was
    return Manifest(
        name=name,
        namespace=_text(document.get("namespace")),
        description=_text(document.get("description")),
        category=_text(document.get("category")) or "other",
        kernel=_kernel(document),
        images=_texts(document.get("images")),
        metadata=_mapping(document.get("metadata")),
        env=_texts(document.get("env")) or _texts(variant.get("env")),
        needs=_needs(_mapping(document.get("resources")) or _mapping(variant.get("resources")), source),
        secrets=_secrets(document.get("secrets"), older.get("secrets")),
        integrations=_integrations(
            document.get("integrations"), older.get("integrations"), document.get("credentials")
        ),
        default_function=_text(document.get("default_function")) or DEFAULT_FUNCTION,
        title=_text(document.get("title")),
        public=document.get("is_public") is True,
        timeouts=_limits(read_timeouts, document.get("timeouts"), source),
        retry=_limits(read_retry, document.get("retry"), source),
        keep_alive_s=_limits(read_keep_alive, document.get("keep_alive"), source),
    )


def _limits(read: Callable[[object], T], value: object, source: str) -> T:
    try:
        return read(value)
    except BadLimit as error:
        raise BadManifest(f"'{source}': {error}") from error


def _kernel(document: dict[str, Any]) -> str:
    """`kernel`, or `python` of older files, which name the version alone."""
    kernel, python = document.get("kernel"), document.get("python")
    if isinstance(kernel, float):  # 3.11 without quotes; and 3.10 comes out of YAML as 3.1
        return "3.10" if kernel == 3.1 else str(kernel)
    if _text(kernel) or not python:
        return _text(kernel)
    return f"python-{'3.10' if python == 3.1 else _text(python)}"


def _needs(resources: dict[str, Any], source: str) -> Needs:
    gpu = _mapping(resources.get("gpu"))
    count = _number(gpu.get("count"), "resources.gpu.count", source)
    kind = _text(gpu.get("type")).lower()
    known = {member.value for member in GpuType}
    gpu_type = GpuType(kind) if kind in known else GpuType.NONE
    if count and gpu_type is GpuType.NONE:
        gpu_type = GpuType.ANY  # the count decides
    return Needs(
        gpu_count=count,
        gpu_type=gpu_type if count else GpuType.NONE,
        vram_bytes=_size(gpu.get("vram"), "resources.gpu.vram", source) if count else 0,
        ram_bytes=_size(resources.get("ram"), "resources.ram", source),
    )


def size_of(number: int) -> int:
    """Bytes of a size in inf.yml without a unit.

    Below 256 it counts GB (4, 16), below a million MB (512, 2048, 24000), else bytes. The platform's text has other
    bounds (1000 and 10^9), which differ only where they would mean 256 GB of memory and more; files mean the smaller.
    """
    if number < 256:
        return number * _GB
    return number * _MB if number < 1_000_000 else number


def _size(value: object, name: str, source: str) -> int:
    """Bytes of a number (`size_of`), or of a text with a unit: 16GB, 512 MiB, 24Gi."""
    if isinstance(value, str) and value.strip() and not value.strip().isdecimal():
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise BadManifest(
                f"'{source}': {name} must be a number of bytes or a size like 16GB, found {value!r}"
            )
        if found["unit"]:
            return int(float(found["number"]) * _UNITS[found["unit"].lower()])
    return size_of(_number(value, name, source))


def _number(value: object, name: str, source: str) -> int:
    try:
        number = int(float(value or 0))  # type: ignore[arg-type]  # anything that is no number raises
    except (TypeError, ValueError, OverflowError):
        raise BadManifest(f"'{source}': {name} must be a number, found {value!r}") from None
    if number < 0:
        raise BadManifest(f"'{source}': {name} must not be negative, found {value!r}")
    return number


def _secrets(*values: object) -> tuple[SecretNeed, ...]:
    """Variables that the app wants: lists of maps with a key, or of plain names."""
    return tuple(
        SecretNeed(
            key=key, description=_text(facts.get("description")), optional=facts.get("optional") is True
        )
        for key, facts in _entries(*values).items()
    )


def _integrations(*values: object) -> tuple[IntegrationNeed, ...]:
    """Connected accounts that the app wants, in any of the three forms; a map is from name to facts."""
    return tuple(
        IntegrationNeed(
            key=key,
            description=_text(facts.get("description")),
            optional=facts.get("optional") is True,
            secrets=tuple(_entries(facts.get("secrets"))),
        )
        for key, facts in _entries(*values).items()
    )


def _entries(*values: object) -> dict[str, dict[str, Any]]:
    """Facts by key; the first entry of a key counts."""
    found: dict[str, dict[str, Any]] = {}
    for value in values:
        listed = value if isinstance(value, list) else []
        if isinstance(value, dict):
            listed = [{"key": key} | _mapping(facts) for key, facts in value.items()]
        for entry in listed:
            facts = _mapping(entry)
            key = _text(facts.get("key")) if facts else _text(entry)
            if key:
                found.setdefault(key, facts)
    return found


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, (dict, list)) else str(value).strip()


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _texts(value: object) -> dict[str, str]:
    """A map of strings; YAML makes numbers and booleans of unquoted ones."""
    return {key: _env_text(item) for key, item in _mapping(value).items()}


def _env_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else _text(value)
