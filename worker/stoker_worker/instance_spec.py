"""What an app's process is started with: its specification, the program that runs it, its variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.redaction import Redactor
from stoker_worker.installer import guarded
from stoker_worker.procs import clean_environment
from stoker_worker.strays import FILES_VARIABLE

RUNNER: Final = Path(__file__).parent / "runner"
NODE_RUNNER: Final = Path(__file__).parent / "runner_node" / "main.mjs"
PYTHON_FLAGS: Final = ("-I", "-u", "-X", "utf8", "-X", "faulthandler")
"""Isolated, so that no file beside the app stands for a module of the library; a crash in C tells its stack."""
FILES: Final = "files"
"""In the instance's folder: what its app downloads."""
PLATFORM_APP_DIR: Final = "/app"
"""Where the hosted platform has the app's folder; some apps name it in PYTHONPATH."""

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """What a process is started with.

    `gpus`: UUIDs of the devices that it may see. `own_tmp`: give it a /tmp of its own if the kernel allows it;
    `keep`: what of the shared /tmp it must see all the same. `node_env`: the folder with node_modules of a Node
    app, whose Node `python` is then.

    `cache_bytes`: what may stay of the app's own downloads between runs.

    `secrets` are variables too, and stronger than `env`; what the `redactor` knows is hidden in lines and errors.
    """

    python: Path
    app_dir: Path
    work_dir: Path
    setup: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    redactor: Redactor = field(default_factory=lambda: Redactor({}), repr=False)
    gpus: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    stop_grace_s: float = 5.0
    own_tmp: bool = False
    keep: tuple[Path, ...] = ()
    node_env: Path | None = None
    cache_bytes: int = 10 * 1024**3


def command_of(spec: InstanceSpec, fd: int, folders: dict[str, Any]) -> tuple[str, ...]:
    """The program of an app's process; `fd` is its end of the socket, `folders` is for its own /tmp."""
    if spec.node_env is not None:
        folders = folders | {"keep": [*folders["keep"], str(spec.node_env), str(NODE_RUNNER.parent)]}
        command = (spec.python, NODE_RUNNER, spec.node_env)
        return guarded(fd, *command, folders=_encode(folders).decode())
    return (
        str(spec.python),
        *PYTHON_FLAGS,
        str(RUNNER),
        str(fd),
        str(os.getpid()),
        _encode(folders).decode(),
    )


def process_environment(spec: InstanceSpec, work_dir: Path) -> dict[str, str]:
    """The variables of the app's process: none that are ours, what the app asks for, what the instance needs."""
    env = clean_environment(os.environ)
    env["PATH"] = f"{spec.python.parent}{os.pathsep}{env['PATH']}"
    env |= {**spec.env, **spec.secrets}
    if spec.node_env is not None:
        env["NODE_PATH"] = str(spec.node_env / "node_modules")  # for what an app loads with `require`
    if "PYTHONPATH" in env:
        paths = env["PYTHONPATH"].split(os.pathsep)
        env["PYTHONPATH"] = os.pathsep.join(
            str(spec.app_dir) if path == PLATFORM_APP_DIR else path for path in paths
        )
    env |= {
        "TMPDIR": str(work_dir / "tmp"),
        FILES_VARIABLE: str(work_dir / FILES),
        "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus),
    }
    return {name: value for name, value in env.items() if not name.startswith("STOKER_")}
