"""Writes the pages that are made from the code: `python docs/generate.py` (or `make generate`).

With `--check` nothing is written; the exit code says whether a page differs. A test does the same.
"""

import ast
import json
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from typer import Context
from typer.core import TyperArgument, TyperGroup
from typer.main import get_command

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
from stoker_cli import main as cli
from stoker_gateway.access import needed_by
from stoker_gateway.app import all_routes
from stoker_scheduler.chores import STUCK_CODE
from stoker_worker import environment, instance_errors, nodes, outcomes, pythons, system_packages

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
        "rest.",
        "",
        "Every script may be repeated after a lost reply, and a batch whose connection broke is sent once more, whether the",
        "server has run it or not. Where the repeat would be told otherwise, and that would matter, it is known again: `lead`",
        "and `take_call` by a word of their caller, `delete`, `delete_secret` and the removal by `put_pin` by a mark that is",
        "kept for a minute. `take_due` is not sent again: its caller hears `StoreUnavailable`, and looks at everything the next",
        "time. After a lost reply to `claim_delivery` the lane waits for the end of the lease.",
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
        f"| `{cls.code}` | {cls.http} | {'yes' if cls.retryable else 'no'} | {_first_line(cls)} |"
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
            "## Why a task failed",
            "",
            "A task that failed says so in its `error`, in the app's own words where it had some, and in its `error_code`.",
            "[reliability.md](reliability.md#another-attempt) says which of them are tried again.",
            "",
            "| code | what it means |",
            "|---|---|",
            *(f"| `{code}` | {meaning} |" for code, meaning in sorted(_task_codes().items())),
            "",
        ]
    )


def _task_codes() -> dict[str, str]:
    """Code -> what it means: of the errors of the worker's modules, and of those that others note."""
    found = {
        errors.AppFailed.code: "The app raised, or a node of the flow failed.",
        errors.WorkerLost.code: "Its machine fell silent or had to stop it, and there was no attempt left; or its session was lost.",
        "poison": "It ended its app's process, or its machine, too often; `error` has the reason of each attempt.",
        errors.Bug.code: "The worker itself failed on it; please report what `error` says.",
        STUCK_CODE: "A worker that lives held it for longer than anything may take.",
    }
    for module in (environment, instance_errors, nodes, outcomes, pythons, system_packages):
        for cls in _tree(errors.StokerError):
            if cls.__module__ == module.__name__:
                found.setdefault(cls.code, _first_line(cls))
    for cls in (errors.QueueTimeout, errors.NoMatchTimeout):
        found[cls.code] = _first_line(cls)
    return found


def commands_page() -> str:
    """docs/commands.md from the help texts of `stoker`."""
    root: Any = get_command(cli.app)  # typer's classes are not typed
    context = Context(root, info_name="stoker")
    parts = [
        "# Commands",
        "",
        NOTICE,
        "`stoker --help`, and `--help` of each command, say the same. `--json` prints JSON, for programs. What is in",
        "brackets may be left out. `STOKER_URL` says where the gateway is, `STOKER_API_KEY` who asks; without them it is",
        "the system of this machine.",
    ]
    for name in cli.COMMANDS:
        command = root.get_command(context, name)
        title = f"stoker {name}"
        parts += ["", f"## {title}", ""]
        if isinstance(command, TyperGroup):
            rows = [_command(f"{title} {sub}", one) for sub, one in command.commands.items()]
            parts += [_one_line(command.help), "", "| command | what it does |", "|---|---|", *rows]
        else:
            parts += ["| command | what it does |", "|---|---|", _command(title, command)]
    return "\n".join([*parts, ""])


def _command(title: str, command: Any) -> str:
    shown = [one for one in command.params if not getattr(one, "hidden", False) and "--json" not in one.opts]
    given = {one: (one.metavar or one.name).upper() for one in shown if isinstance(one, TyperArgument)}
    options = [one for one in shown if one not in given]
    usage = [title, *(name if one.required else f"[{name}]" for one, name in given.items())]
    usage += [f"{one.opts[0]} {one.name.upper()}" for one in options if one.required]
    notes = [_one_line(command.help), *(f"{name}: {_one_line(one.help)}" for one, name in given.items())]
    notes += [f"`{'`, `'.join(one.opts)}`: {_one_line(one.help)}" for one in options]
    return f"| `{' '.join(usage)}` | {'<br>'.join(notes)} |"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


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
        "A flag of the command wins over an environment variable, which wins over `stoker.yml`, which wins over the",
        "default. `stoker doctor` prints what is not the default and where it comes from, `stoker doctor --settings` all.",
        "",
        'In an environment variable, lists and maps are JSON: `STOKER_ALLOWED_ORIGINS=\'["*"]\'`, `STOKER_LABELS=\'{"room":',
        '"2"}\'`; `STOKER_FETCH_ALLOW`, `STOKER_SKILL_ALLOW` and `STOKER_WEBHOOK_ALLOW` take plain commas too. In `stoker.yml`',
        "all are YAML, under the name in small letters and without `STOKER_`.",
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
    if isinstance(default, tuple):
        shown = json.dumps(default) if default else "(none)"
    if isinstance(default, settings.WorkerSlots):
        shown = "one for each GPU; else 2 CPU workers"
    if field.default_factory is not None and name == "name":
        shown = "the host's name"
    return f"| `STOKER_{name.upper()}` | `{shown}` | {field.description} |"


def _first_line(cls: type[errors.StokerError]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


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
    "commands.md": commands_page,
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
