"""Writes the pages that are made from the code: `python docs/generate.py` (or `make generate`).

With `--check` nothing is written; the exit code says whether a page differs. A test does the same.
"""

import ast
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from stoker import settings
from stoker.core import errors, scopes
from stoker.core.states import (
    ALLOWED,
    NODE_MOVES,
    RESIDENT_MOVES,
    RUN_MOVES,
    TERMINAL,
    NodeState,
    ResidentState,
    RunState,
    TaskState,
)
from stoker.protocol.scripts import scripts
from stoker_gateway.access import needed_by
from stoker_gateway.app import all_routes

HERE = Path(__file__).parent
_TYPED = re.compile(r":\w+}")
_OPEN_ROUTES = (
    "The address, or what comes with the request, is a secret of its own; or it tells nothing of anybody."
)
NOTICE = "<!-- Made by docs/generate.py; change the code it names, then run `make generate`. -->\n"
_STATES = Path(settings.__file__).parent / "core" / "states.py"


def states_page() -> str:
    """docs/states.md from `stoker/core/states.py`."""
    docs, run_docs, node_docs = (
        _member_docs(_STATES, name) for name in ("TaskState", "RunState", "NodeState")
    )
    hidden = {TaskState.FAILED, TaskState.CANCELLED}
    arrows = [
        f"    {old.wire_name} --> {new.wire_name}"
        for old, to in ALLOWED.items()
        for new in sorted(to)
        if new not in hidden and not (new is TaskState.QUEUED and old > TaskState.QUEUED)
    ]
    rows = [
        f"| {int(s)} | `{s.wire_name}` | {docs[s.name]} | "
        f"{', '.join(f'`{to.wire_name}`' for to in sorted(ALLOWED[s])) or 'nothing: it absorbs'} |"
        for s in TaskState
    ]
    return "\n".join(
        [
            "# The states of a task",
            "",
            NOTICE,
            "The table is `stoker/core/states.py`; the Lua scripts run on the same one. Every state that is not an",
            "ending can also move to `failed` and `cancelled`; every state in which an engine owns the task can move",
            "back to `queued` when that engine is lost. These moves are left out of the picture.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> received",
            *arrows,
            *(f"    {end.wire_name} --> [*]" for end in sorted(TERMINAL) if end is TaskState.COMPLETED),
            "```",
            "",
            "| number | state | what it means, and what a crash in it leaves | may move to |",
            "|---|---|---|---|",
            *rows,
            "",
            *_instance_states(),
            "",
            "# The states of a flow run, and of its nodes",
            "",
            "See [flows.md](flows.md).",
            "",
            "| number | state of a run | what it means | may move to |",
            "|---|---|---|---|",
            *(
                f"| {int(s)} | `{s.wire_name}` | {run_docs[s.name]} | {_moves(to.wire_name for to in sorted(RUN_MOVES[s]))} |"
                for s in RunState
            ),
            "",
            "| state of a node | what it means | may move to |",
            "|---|---|---|",
            *(f"| `{s}` | {node_docs[s.name]} | {_moves(sorted(NODE_MOVES[s]))} |" for s in NodeState),
            "",
        ]
    )


def _moves(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing: it absorbs"


def _instance_states() -> list[str]:
    docs = _member_docs(_STATES, ResidentState.__name__)
    rows = [
        f"| `{state}` | {docs[state.name]} | {', '.join(f'`{to}`' for to in ResidentState if to in RESIDENT_MOVES[state])} |"
        for state in ResidentState
    ]
    return [
        "## The states of an instance",
        "",
        "On its worker, which alone moves it. A parked one is told apart in reports, as it takes no place there.",
        "",
        "| state | what it means | may move to |",
        "|---|---|---|",
        *rows,
    ]


def protocol_page() -> str:
    """docs/protocol.md from the headers of the Lua scripts."""
    parts = [
        "# The Redis protocol",
        "",
        NOTICE,
        "One verb, one script in `stoker/protocol/lua/`, called with `EVALSHA` by the wrapper named beside it. All",
        "keys of a call begin with `stoker:{<pool>}:` and lie in one cluster slot. A script answers `OK` and values, or",
        "the name of a refusal. The wrappers raise `StaleAttempt` for `STALE_ATTEMPT` and `ProtocolRefusal` for the",
        "rest. Every script may be repeated after a lost reply.",
        "",
    ]
    for script in scripts().values():
        parts += [f"## {script.name}", "", script.purpose[0].upper() + script.purpose[1:], ""]
        parts += [f"- keys: {', '.join(f'`{key}`' for key in script.keys)}"]
        parts += [f"- arguments: {', '.join(f'`{arg}`' for arg in script.args)}"]
        parts += [f"- answers: `{script.ok}`"]
        parts += [f"- refusals: {', '.join(f'`{code}`' for code in sorted(script.errors)) or 'none'}", ""]
    return "\n".join(parts)


def errors_page() -> str:
    """docs/errors.md from `stoker/core/errors.py`."""
    rows = [
        f"| `{cls.code}` | {cls.http} | {'yes' if cls.retryable else 'no'} | {(cls.__doc__ or '').strip().splitlines()[0]} |"
        for cls in sorted(set(_tree(errors.StokerError)), key=lambda c: (c.http, c.code, c.__name__))
        if cls.__module__ == errors.__name__
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            NOTICE,
            "Every refusal is `application/problem+json` (RFC 9457) and carries the fields of the older envelope beside",
            "it. `type` ends in the code. The text of `detail` says what was asked, what was found and what to do.",
            "",
            "| code | HTTP | a repeat can help | what it means |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def scopes_page() -> str:
    """docs/scopes.md from `stoker/core/scopes.py` and what the gateway's routes declare."""
    routes: dict[scopes.Scope | None, list[str]] = {}
    for handler in all_routes():
        for path in sorted(handler.paths):
            shown = f"`{' '.join(sorted(handler.http_methods))} {_TYPED.sub('}', path)}`"
            routes.setdefault(needed_by(handler), []).append(shown)
    rows = [
        f"| `{scope}`{' (administrative)' if scope.family in scopes.ADMINISTRATIVE else ''} | {scope.meaning} | "
        f"{', '.join(sorted(routes.get(scope, [])))} |"
        for scope in scopes.Scope
    ]
    presets = [f"| {name} | {', '.join(f'`{s}`' for s in names)} |" for name, names in scopes.PRESETS.items()]
    return "\n".join(
        [
            "# Scopes",
            "",
            NOTICE,
            "What an API key may do; [security.md](security.md) says what that amounts to. A key without scopes may do",
            "everything. A family (`apps`) is all of its scopes, `*` is everything. No scope includes another one.",
            "",
            "| scope | what it allows | routes |",
            "|---|---|---|",
            *rows,
            f"| none, and no key | {_OPEN_ROUTES} | {', '.join(sorted(routes[None]))} |",
            "",
            "Often wanted together:",
            "",
            "| for | scopes |",
            "|---|---|",
            *presets,
            "",
        ]
    )


def settings_page() -> str:
    """docs/settings.md from `stoker/settings.py`."""
    parts = [
        "# Settings",
        "",
        NOTICE,
        "An environment variable wins over `stoker.yml`, which wins over the default. `stoker doctor` prints each",
        "value with its source.",
        "",
        "`stoker.yml` is the file that `STOKER_CONFIG` names, else the first that exists of",
        f"{', '.join(f'`{place}`' for place in settings.CONFIG_PLACES)}.",
    ]
    seen: set[str] = set()
    for cls in (
        settings.CommonSettings,
        settings.FilesSettings,
        settings.GatewaySettings,
        settings.SchedulerSettings,
        settings.WorkerSettings,
        settings.JobsSettings,
        settings.UpSettings,
        settings.ClientSettings,
    ):
        fields = [(name, field) for name, field in cls.model_fields.items() if name not in seen]
        seen.update(name for name, _ in fields)
        if fields:
            title = cls.__name__.removesuffix("Settings")
            parts += ["", f"## {title}", "", "| variable | default | meaning |", "|---|---|---|"]
            parts += [_setting(name, field) for name, field in fields]
    return "\n".join([*parts, ""])


def top_picture() -> str:
    """docs/pictures/top.svg: a frame of `stoker top`, from the made-up data beside it."""
    picture: str = runpy.run_path(str(HERE / "pictures" / "top.py"))["svg"]()
    return picture


def _setting(name: str, field: Any) -> str:
    default = field.get_default(call_default_factory=True)
    shown = str(default).replace(str(Path.home()), "~") if str(default) and default is not None else "(none)"
    if field.default_factory is not None and name == "name":
        shown = "the host's name"
    return f"| `STOKER_{name.upper()}` | `{shown}` | {field.description} |"


def _tree(cls: type[errors.StokerError]) -> Iterator[type[errors.StokerError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


def _member_docs(path: Path, enum: str) -> dict[str, str]:
    """The strings below the members of an enum in a module."""
    tree = ast.parse(path.read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == enum).body
    found: dict[str, str] = {}
    for node, after in pairwise(body):
        if (
            isinstance(node, ast.Assign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            target = node.targets[0]
            assert isinstance(target, ast.Name)  # noqa: S101 - members are plain names
            found[target.id] = " ".join(str(after.value.value).split())
    return found


PAGES = {
    "states.md": states_page,
    "protocol.md": protocol_page,
    "errors.md": errors_page,
    "settings.md": settings_page,
    "scopes.md": scopes_page,
    "pictures/top.svg": top_picture,
}


def main() -> int:
    """Write the pages, or with `--check` compare them."""
    stale = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
