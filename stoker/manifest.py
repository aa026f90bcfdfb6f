"""Reads inf.yml: what an app is called and what it needs. Tolerant, as the platform's own apps require."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from stoker.core.errors import CallerError
from stoker.core.messages import GpuType, IntegrationNeed, Needs, SecretNeed

FILE_NAME: Final = "inf.yml"
_GB: Final = 1000**3
_MB: Final = 1000**2


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
    default_function: str = "run"

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
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise BadManifest(f"'{folder}' is no app: it has no {FILE_NAME}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadManifest(f"'{path}' cannot be read: {error}") from error
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe ones
    except yaml.YAMLError as error:
        raise BadManifest(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise BadManifest(f"'{path}' must hold a mapping, found {type(document).__name__}")
    return parse(document, str(path))


def parse(document: dict[str, Any], source: str = FILE_NAME) -> Manifest:
    """The manifest in a parsed inf.yml.

    Raises:
        BadManifest: it has no name, or a size is no number.
    """
    name = _text(document.get("name"))
    if not name:
        raise BadManifest(f"'{source}' has no name")
    older = _mapping(document.get("requirements"))  # where they stood before
    return Manifest(
        name=name,
        namespace=_text(document.get("namespace")),
        description=_text(document.get("description")),
        category=_text(document.get("category")) or "other",
        kernel=_text(document.get("kernel")) or _python_of(document),
        images=_texts(document.get("images")),
        metadata=_mapping(document.get("metadata")),
        env=_texts(document.get("env")),
        needs=_needs(_mapping(document.get("resources")), source),
        secrets=_secrets(document.get("secrets"), older.get("secrets")),
        integrations=_integrations(
            document.get("integrations"), older.get("integrations"), document.get("credentials")
        ),
        default_function=_text(document.get("default_function")) or "run",
    )


def _python_of(document: dict[str, Any]) -> str:
    """Older files name the version alone."""
    version = _text(document.get("python"))
    return f"python-{version}" if version else ""


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
        vram_bytes=size_of(_number(gpu.get("vram"), "resources.gpu.vram", source)) if count else 0,
        ram_bytes=size_of(_number(resources.get("ram"), "resources.ram", source)),
    )


def size_of(number: int) -> int:
    """Bytes of a size in inf.yml: small numbers mean GB (4, 16), larger ones up to a million MB (512, 2048)."""
    if number < 256:
        return number * _GB
    return number * _MB if number < 1_000_000 else number


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
