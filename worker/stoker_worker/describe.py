"""Reads an app's functions and schemas by importing it in its own environment. Runs no setup."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.apps import AppFunction
from stoker.core.errors import CallerError
from stoker.manifest import Manifest
from stoker_worker.environment import Environments
from stoker_worker.instance import Instance
from stoker_worker.instance_errors import InstanceFailed
from stoker_worker.instance_spec import InstanceSpec

IMPORT_TIMEOUT_S: Final = 600.0
"""Importing torch and its like from a cold disk takes minutes."""


class NotDescribable(CallerError):
    """The app cannot be imported."""

    code = "bad_app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an app offers. `setup_schema` is {} when its setup takes no values."""

    functions: dict[str, AppFunction]
    setup_schema: dict[str, Any]


async def describe(
    app_dir: Path, app: Manifest, environments: Environments, on_line: Callable[[str], None]
) -> Description:
    """Build the app's environment if needed, import the app, and read its functions.

    Raises:
        NotDescribable: the import failed or took too long, or there is no function.
        StokerError: the environment cannot be built.
    """
    folder = await asyncio.to_thread(app_dir.absolute)
    environment = await environments.ensure(folder, app, lambda _kind, text: on_line(text))
    work = Path(tempfile.mkdtemp(prefix="stoker-describe-"))
    spec = InstanceSpec(
        python=environment.python,
        app_dir=folder,
        work_dir=work,
        env=app.env,
        stop_grace_s=1.0,
        node_env=environment.node_env,
    )
    for note in environment.notes:
        on_line(note)
    try:
        async with asyncio.timeout(IMPORT_TIMEOUT_S):
            functions, setup_schema = await _describe(spec, on_line)
    except TimeoutError:
        raise NotDescribable(f"Importing {app.name!r} took longer than {IMPORT_TIMEOUT_S:g} s.") from None
    except InstanceFailed as error:
        raise NotDescribable(f"Importing {app.name!r} failed: {error.message}") from error
    finally:
        environment.close()
        shutil.rmtree(work, ignore_errors=True)
    if not functions:
        raise NotDescribable(f"{app.name!r} has no function: its class App needs a public method `run`.")
    return Description(
        functions={name: msgspec.convert(entry, AppFunction) for name, entry in functions.items()},
        setup_schema=setup_schema,
    )


async def _describe(
    spec: InstanceSpec, on_line: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    instance = await Instance.start(spec, lambda _kind, text: on_line(text))
    try:
        return await instance.describe()
    finally:
        await instance.stop("described")
