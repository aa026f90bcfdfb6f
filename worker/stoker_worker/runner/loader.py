"""Loads an app's folder and says what is in it: the App object, its functions, its setup, their schemas."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import types
import typing
from pathlib import Path

from values import is_model

PACKAGE = "stoker_app"
"""The folder's name as a package; its own name (a content hash) need not be an identifier."""
ENTRY_FILE = "inference.py"
NOT_FUNCTIONS = frozenset({"setup", "unload", "on_cancel", "park", "unpark"})
LIVE_NAMES = frozenset({"socket", "sock"})
"""The parameter after the input that makes a function a live one."""
SDK_BASES = frozenset({"BaseApp"})


class BadApp(Exception):
    """The folder is no app, or lacks what was asked for."""


def load_app(folder: str, package_dir: str) -> object:
    """Import the folder as a package and make its App.

    Args:
        folder: the app's.
        package_dir: an empty one, where the package is put for processes that the app spawns.

    Raises:
        BadApp: there is no inference.py or no App in it.
        Exception: whatever the app's own code raises.
    """
    _help_children(folder, package_dir)
    module = _import_package(folder)
    kind = getattr(module, "App", None)
    if not isinstance(kind, type):
        raise BadApp(f"{ENTRY_FILE} has no class App")
    return kind()


def _help_children(folder: str, package_dir: str) -> None:
    """Let processes that `multiprocessing` spawns import the package by name; they get our path."""
    with contextlib.suppress(FileExistsError):
        (Path(package_dir) / PACKAGE).symlink_to(folder, target_is_directory=True)
    sys.path.append(package_dir)


def _import_package(folder: str) -> types.ModuleType:
    if not (Path(folder) / ENTRY_FILE).is_file():
        raise BadApp(f"the app's folder has no {ENTRY_FILE}")
    for path in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if path and path not in sys.path:
            sys.path.append(path)  # the interpreter itself runs isolated
    if folder not in sys.path:
        sys.path.append(folder)  # `import helper` beside `from .helper import`
    init = Path(folder) / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(PACKAGE, init, submodule_search_locations=[folder])
        if spec is None or spec.loader is None:
            raise BadApp("the app's folder cannot be imported")
        package = importlib.util.module_from_spec(spec)
        sys.modules[PACKAGE] = package
        spec.loader.exec_module(package)
    else:
        package = types.ModuleType(PACKAGE)
        package.__path__ = [folder]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.inference")


def find_function(app: object, name: str) -> typing.Callable:
    """The method that serves `name`.

    Raises:
        BadApp: there is none; names those that are there.
    """
    found = functions_of(app)
    if name not in found:
        raise BadApp(f"the app has no function {name!r}; it has {', '.join(sorted(found)) or 'none'}")
    if any(kind[0] in LIVE_NAMES for kind in parameters_of(found[name])[1:]):
        raise BadApp(
            f"{name!r} is a live function: it talks over a socket while it runs. Stoker does not offer live "
            "functions; call one that takes an input and returns an output."
        )
    return found[name]


def functions_of(app: object) -> "dict[str, typing.Callable]":
    """The app's functions: `run`, and public methods whose first parameter is a model, or marked as function.

    What it only inherits from the SDK's base class is none of its functions.
    """
    found = {}
    for name in dir(type(app)):
        if name.startswith("_") or name in NOT_FUNCTIONS or _of_base(type(app), name):
            continue
        if not inspect.isfunction(inspect.getattr_static(type(app), name)):
            continue
        method = getattr(app, name)
        marked = hasattr(method, "__inferencesh_function__")
        if name == "run" or marked or _takes_model(method):
            found[name] = method
    return found


def _of_base(kind: type, name: str) -> bool:
    owner = next((base for base in kind.__mro__ if name in vars(base)), kind)
    module = owner.__module__.split(".")[0]
    return owner.__name__ in SDK_BASES or module in {"pydantic", "inferencesh"}


def _takes_model(method: "typing.Callable") -> bool:
    first = next(iter(parameters_of(method)), None)
    return first is not None and is_model(first[1])


_known: dict = {}


def parameters_of(method: "typing.Callable") -> "list[tuple[str, object]]":
    """(name, annotation or None) of each parameter but self; looked up once a method."""
    key = getattr(method, "__func__", method)
    if key not in _known:
        _known[key] = _read_parameters(method)
    return _known[key]


def _read_parameters(method: "typing.Callable") -> "list[tuple[str, object]]":
    try:
        hints = typing.get_type_hints(method)
    except Exception:  # an annotation that is no type any more; the plain ones still serve
        hints = {}
    listed = []
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        plain = parameter.annotation if isinstance(parameter.annotation, type) else None
        kind = hints.get(parameter.name, plain)
        listed.append((parameter.name, None if kind is inspect.Parameter.empty else _without_none(kind)))
    return listed


def _without_none(kind: object) -> object:
    """X of Optional[X]."""
    if typing.get_origin(kind) in (typing.Union, getattr(types, "UnionType", None)):
        kinds = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return kind


def is_metadata(name: str, kind: object) -> bool:
    """Whether a parameter wants the task's metadata."""
    return name == "metadata" or getattr(kind, "__name__", "") == "Metadata"


def setup_model(app: object) -> object:
    """The setup's own model, or None."""
    setup = getattr(app, "setup", None)
    if not callable(setup):
        return None
    kinds = [kind for name, kind in parameters_of(setup) if is_model(kind) and not is_metadata(name, kind)]
    return kinds[0] if kinds else None


def describe_app(app: object) -> dict:
    """Functions with their schemas, and the schema of the setup; JSON values."""
    functions = {}
    for name, method in functions_of(app).items():
        listed = [entry for entry in parameters_of(method) if not is_metadata(*entry)]
        functions[name] = {
            "name": name,
            "description": inspect.getdoc(method) or "",
            "input_schema": _schema(listed[0][1] if listed else None),
            "output_schema": _schema(_output_of(method)),
        }
    return {"functions": functions, "setup_schema": _setup_schema(app)}


def _setup_schema(app: object) -> dict:
    """{} for a setup that takes no values; one that takes them without a model takes any."""
    kind = setup_model(app)
    if kind is not None:
        return _schema(kind)
    setup = getattr(app, "setup", None)
    listed = parameters_of(setup) if callable(setup) else []
    takes = any(not is_metadata(*entry) for entry in listed)
    return {"type": "object", "additionalProperties": True} if takes else {}


def _output_of(method: "typing.Callable") -> object:
    try:
        kind = typing.get_type_hints(method).get("return")
    except Exception:
        return None
    args = typing.get_args(kind)
    origin = getattr(typing.get_origin(kind), "__name__", "")
    if origin in {"AsyncGenerator", "AsyncIterator", "AsyncIterable", "Generator", "Iterator", "Iterable"}:
        return args[0] if args else None
    return _without_none(kind)


def _schema(kind: object) -> dict:
    """The JSON schema of an annotation; {} (anything) where it has none."""
    if kind is None or kind is type(None):
        return {}
    try:
        if is_model(kind):
            return kind.model_json_schema()
        pydantic = sys.modules.get("pydantic")
        return {} if pydantic is None else pydantic.TypeAdapter(kind).json_schema()
    except Exception as error:
        name = getattr(kind, "__name__", str(kind))
        print(f"no schema for {name}: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return {}
