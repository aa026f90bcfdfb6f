"""What an app asks of whoever runs it: which variables, which of them are missing, what they do to the setup key.

Pure. Values of secrets never come here.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from stoker.core.errors import InvalidRequest
from stoker.core.messages import IntegrationNeed, Secret, SecretNeed

MAX_VALUE_BYTES: Final = 64 * 1024
"""Linux takes 128 KiB for one string of an environment (execve(2)); half of it leaves room for the name."""
MAX_DESCRIPTION_CHARS: Final = 500

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED: Final = frozenset(
    [
        "PATH",
        "HOME",
        "SHELL",
        "USER",
        "LOGNAME",
        "PWD",
        "OLDPWD",
        "IFS",
        "ENV",
        "BASH_ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "PS4",
        "CDPATH",
        "TMPDIR",
        "TMP",
        "TEMP",
        "LANG",
        "LANGUAGE",
        "TZ",
        "FILE_CACHE_DIR",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "GCONV_PATH",
        "GETCONF_DIR",
        "HOSTALIASES",
        "LOCPATH",
        "MALLOC_TRACE",
        "NLSPATH",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PERL5LIB",
        "PERL5OPT",
        "RUBYLIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "VIRTUAL_ENV",
        "NOTIFY_SOCKET",
        "CLASSPATH",
        "SSLKEYLOGFILE",
    ]
)
_RESERVED_PREFIXES: Final = ("STOKER_", "LD_", "DYLD_", "PYTHON", "LC_", "GLIBC_", "LISTEN_", "BASH_FUNC_")
"""Variables that say how a process is started, what it loads, or that are ours."""

PROVIDER_VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    "gcp": ("GCP_ACCESS_TOKEN", "GCP_PROJECT_NUMBER"),
    "google": ("GOOGLE_OAUTH_ACCESS_TOKEN",),
    "x": ("X_ACCESS_TOKEN",),
    "discord": ("DISCORD_BOT_TOKEN",),
}
"""What apps read for an integration; any other provider has <PROVIDER>_ACCESS_TOKEN."""


def check_name(name: str, field: str = "key") -> str:
    """`name` when it can be the name of a secret.

    Raises:
        InvalidRequest: it is no environment name, or one that changes how a process runs.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"Input validation failed: {field}: {name[:60]!r} is no name of an environment variable; "
            "use letters, digits and _, not a digit first, at most 128"
        )
    if name.upper() in _RESERVED or name.upper().startswith(_RESERVED_PREFIXES):
        raise InvalidRequest(
            f"Input validation failed: {field}: {name!r} cannot be a secret: this variable changes how "
            "processes run. Choose another name."
        )
    return name


def check_value(value: str) -> str:
    """`value` when an environment can hold it.

    Raises:
        InvalidRequest: empty, too long, or with a NUL; the value is not in the message.
    """
    size = len(value.encode("utf-8", "surrogatepass"))
    if not value or size > MAX_VALUE_BYTES:
        raise InvalidRequest(
            f"Input validation failed: value: it has {size} bytes; it may have 1 to {MAX_VALUE_BYTES}"
        )
    if "\0" in value or _unencodable(value):
        raise InvalidRequest(
            "Input validation failed: value: it holds a character that no environment can hold (NUL, or half "
            "a surrogate pair). Encode it, for instance with base64."
        )
    return value


def variables_of(integration: IntegrationNeed) -> tuple[str, ...]:
    """The variables that stand for a connected account."""
    provider = provider_of(integration)
    safe = re.sub(r"[^A-Z0-9]+", "_", provider.upper()).strip("_")
    return integration.secrets or PROVIDER_VARIABLES.get(provider, (f"{safe}_ACCESS_TOKEN",))


def provider_of(integration: IntegrationNeed) -> str:
    """The first part of its name: gcp of gcp.vertex_ai."""
    return integration.key.split(".")[0]


def wanted(secrets: Iterable[SecretNeed], integrations: Iterable[IntegrationNeed]) -> tuple[SecretNeed, ...]:
    """Each variable once; it is required when anything requires it."""
    found: dict[str, bool] = {}
    entries = [(need.key, need.optional) for need in secrets]
    entries += [(name, need.optional) for need in integrations for name in variables_of(need)]
    for name, optional in entries:
        found[name] = optional and found.get(name, True)
    return tuple(SecretNeed(key=name, optional=optional) for name, optional in found.items())


def decide_missing(
    secrets: Iterable[SecretNeed],
    integrations: Iterable[IntegrationNeed],
    have: Iterable[str],
    why_not: str = "",
) -> tuple[dict[str, object], ...]:
    """The entries of the answer to a run that lacks something; empty = nothing is missing.

    Args:
        secrets: what the app declares.
        integrations: what else it declares.
        have: names that the caller has, and that the app may be given.
        why_not: a sentence that explains why the app is given none.
    """
    known = frozenset(have)
    missing: list[dict[str, object]] = []
    for need in secrets:
        if need.key not in known and not need.optional:
            about = f" ({need.description.strip().rstrip('.')})" if need.description.strip() else ""
            advice = why_not or f"Add it: stoker secrets set {need.key}, or POST /secrets."
            text = f"The app needs the secret {need.key}{about}, which is missing. {advice}"
            missing.append(
                {"type": "secret", "key": need.key, "message": text, "action": {"type": "add_secret"}}
            )
    for integration in integrations:
        names = [name for name in variables_of(integration) if name not in known]
        if names and not integration.optional:
            advice = why_not or f"Add what stands for it as secrets: {', '.join(names)} (stoker secrets set)."
            text = f"The app needs the integration {integration.key}, which is not connected. {advice}"
            action = {"type": "connect", "provider": provider_of(integration)}
            missing.append({"type": "integration", "key": integration.key, "message": text, "action": action})
    return tuple(missing)


def secrets_digest(owner_id: str, secrets: Mapping[str, Secret]) -> str:
    """What resolved secrets add to the setup key: whose they are, which, and which values. Empty for none."""
    if not secrets:
        return ""
    facts = [[name, secret.id, secret.version] for name, secret in sorted(secrets.items())]
    return hashlib.sha256(json.dumps([owner_id, facts]).encode()).hexdigest()


def masked(value: str) -> str:
    """What lists show: the end of a long value, to recognise it, and nothing of a short one."""
    return "********" + (value[-4:] if len(value) >= 20 and value.isprintable() else "")


def _unencodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False
