"""What an app is told about its task, and what it finds on its own object: `context` and `logger`."""

import contextlib
import logging
import sys

import values

FIELDS = ("app_id", "app_version_id", "worker_id", "gpu_ids", "task_id", "team_id", "user_id")
"""Those of the SDK's class, which apps read without asking whether they are there."""


class Metadata:
    """What apps of an SDK without a Metadata class get: attributes, `get` as of a dict, and `log`."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(dict.fromkeys(FIELDS), **fields)

    def get(self, key: str, default: object = None) -> object:
        return self.__dict__.get(key, default)

    def log(self, *words: object) -> None:
        _log(*words)


def make_metadata(fields: dict) -> object:
    """The SDK's Metadata with `get` and `log`, if the app has loaded an SDK that has one; else our own."""
    fields = {"app_variant": "default", **fields}  # older apps read it without asking
    base = getattr(sys.modules.get("inferencesh"), "Metadata", None)
    if not values.is_model(base):
        return Metadata(**fields)
    try:
        return _with_get(base)(**fields)
    except Exception as error:  # a Metadata of an age that we do not know
        print(f"metadata: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return Metadata(**fields)


_kinds: dict = {}


def _with_get(base: type) -> type:
    """A subclass, made once, that also has `get` and `log`."""
    if base not in _kinds:

        def get(self: object, key: str, default: object = None) -> object:
            return getattr(self, key, default)

        def log(_self: object, *words: object) -> None:
            _log(*words)

        body = {"get": get, "log": log, "__module__": base.__module__}
        _kinds[base] = type("Metadata", (base,), body)
    return _kinds[base]


def _log(*words: object) -> None:
    """A line of the task's log."""
    print(*words, flush=True)  # noqa: T201


class Context:
    """What goes on now. `cancel_requested` turns true at once, also while a run blocks the event loop."""

    def __init__(self) -> None:
        self._cancel = False
        self._watched = False

    @property
    def cancel_requested(self) -> bool:
        """For the app: whether it should stop by itself."""
        self._watched = True
        return self._cancel

    def begin(self) -> None:
        """A run begins."""
        self._cancel = self._watched = False

    def cancel(self) -> None:
        """The run is not wanted any more."""
        self._cancel = True

    def is_watched(self) -> bool:
        """Whether the run looks whether it should stop."""
        return self._watched


def equip(app: object) -> Context:
    """Give an app's object `context` and `logger`, where it has none of its own; the context."""
    context = Context()
    for name, value in (("context", context), ("logger", _logger())):
        if not hasattr(app, name):
            with contextlib.suppress(Exception):  # an object that takes no attributes
                setattr(app, name, value)
    return context


def _logger() -> logging.Logger:
    """A logger whose lines reach the log; the root logger stays as it is, so that basicConfig still works."""
    logger = logging.getLogger("stoker_app.app")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
