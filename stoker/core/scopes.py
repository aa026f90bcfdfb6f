"""What an API key may do: the names of scopes, and which of them covers which.

A scope is ``family:right``. A family's name alone covers all of its rights, ``*`` covers everything, and so does a key
that names no scope at all. No right covers another one: who may write may not read by that.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, Self

from stoker.core.errors import InvalidRequest, MissingScope

ALL: Final = "*"


class Scope(StrEnum):
    """One right, with what `GET /scopes` and docs/security.md say of it."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    APPS_READ = (
        "apps:read",
        "List and read apps, versions and their code, tasks with their logs and outputs, and sessions.",
    )
    APPS_WRITE = ("apps:write", "Deploy, change and remove apps and versions, and say who sees them.")
    APPS_EXECUTE = (
        "apps:execute",
        "Run apps, load them ahead; cancel and delete tasks; keep and end sessions.",
    )
    FLOWS_READ = ("flows:read", "List and read flows, their versions and their runs.")
    FLOWS_WRITE = ("flows:write", "Make, change and delete flows, and deploy them as apps.")
    FLOWS_EXECUTE = ("flows:execute", "Run flows; cancel their runs.")
    AGENTS_READ = ("agents:read", "List and read stored agents.")
    AGENTS_WRITE = ("agents:write", "Store, change and delete agents.")
    AGENTS_EXECUTE = ("agents:execute", "Talk to agents: the apps and tools that they use run with it.")
    CONVERSATIONS_READ = ("conversations:read", "List, read and follow chats.")
    CONVERSATIONS_WRITE = (
        "conversations:write",
        "Stop, change and delete chats; give results of tools, and allow or refuse calls of them.",
    )
    FILES_READ = (
        "files:read",
        "List files and read their records, in which the address of the bytes is.",
    )
    FILES_WRITE = ("files:write", "Announce uploads, make files public, delete them.")
    SECRETS_READ = (
        "secrets:read",
        "List secrets with masked values; read a value where the operator has allowed that.",
    )
    SECRETS_WRITE = ("secrets:write", "Set and delete secrets.")
    WEBHOOKS_READ = (
        "webhooks:read",
        "List deliveries of webhooks with their tries, and see whether a secret signs them.",
    )
    WEBHOOKS_WRITE = (
        "webhooks:write",
        "Make or replace the secret that signs webhooks, replay deliveries, and call an address for a test.",
    )
    ENGINES_READ = (
        "engines:read",
        "List and read machines, workers and enrolments, and see which apps run and wait, of everybody.",
    )
    ENGINES_WRITE = ("engines:write", "Invite, revoke, drain and restart machines; pin and unload apps.")
    APIKEYS_READ = ("apikeys:read", "List API keys, and the scopes that there are.")
    APIKEYS_WRITE = (
        "apikeys:write",
        "Make keys with scopes that this key has, and delete any key of the same user.",
    )
    AUDIT_READ = ("audit:read", "Read the record of what was changed by whom.")

    @property
    def family(self) -> str:
        """What it belongs to: the part before the colon."""
        return self.value.partition(":")[0]


ADMINISTRATIVE: Final = frozenset({"engines", "apikeys", "audit"})
"""Families that change who may do what, or what runs for everybody."""
FAMILIES: Final = tuple(dict.fromkeys(scope.family for scope in Scope))
PRESETS: Final[dict[str, tuple[str, ...]]] = {
    "run": (
        Scope.APPS_READ,
        Scope.APPS_EXECUTE,
        Scope.FLOWS_READ,
        Scope.FLOWS_EXECUTE,
        Scope.AGENTS_READ,
        Scope.AGENTS_EXECUTE,
        "conversations",
        "files",
    ),
    "deploy": ("apps", "flows", "files"),
    "watch": (Scope.APPS_READ, Scope.FLOWS_READ, Scope.FILES_READ, Scope.ENGINES_READ),
    "admin": (ALL,),
}
"""Sets that are often wanted together; `GET /scopes` shows them."""


def known() -> tuple[str, ...]:
    """Every name that a key may hold."""
    return (*Scope, *FAMILIES, ALL)


def allows(held: Sequence[str], wanted: Scope) -> bool:
    """Whether a key with these scopes may do what needs `wanted`."""
    return not held or wanted in held or ALL in held or wanted.family in held


def expanded(scopes: Iterable[str]) -> tuple[Scope, ...]:
    """The single rights that these names come to; those that are unknown come to none."""
    names = tuple(scopes)
    return tuple(scope for scope in Scope if allows(names, scope))


def check_scopes(names: Sequence[str]) -> tuple[str, ...]:
    """The scopes of a key to be made, each once.

    Raises:
        InvalidRequest: one is unknown; names those that there are.
    """
    if unknown := [name for name in names if name not in known()]:
        raise InvalidRequest(
            f"Input validation failed: scopes: {', '.join(map(repr, unknown))} is unknown; "
            f"known: {', '.join(known())}"
        )
    return tuple(dict.fromkeys(names))


def check_grant(held: Sequence[str], asked: Sequence[str]) -> None:
    """Whether a key with the scopes `held` may make one with those of `asked`; none asked is all of them.

    Raises:
        MissingScope: it would give more than it has.
    """
    if not held or ALL in held:
        return
    if not asked or ALL in asked:
        raise MissingScope(
            "A key can only give scopes that it has itself, and a key without scopes may do everything. This one has "
            f"{', '.join(held)}: name some of those in `scopes` (stoker keys create --scope {held[0]}).",
            missing_scopes=[ALL],
        )
    if missing := [scope.value for scope in expanded(asked) if not allows(held, scope)]:
        raise MissingScope(
            f"A key can only give scopes that it has itself. This one has {', '.join(held)}; it lacks "
            f"{', '.join(missing)}. Ask for fewer, or use a key that has them.",
            missing_scopes=missing,
        )
