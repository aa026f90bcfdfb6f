"""Options in groups: a command takes a dataclass, and Typer sees each of its fields as an option."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Final, get_type_hints

GROUP: Final = "options"


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with one parameter `options`, a dataclass, as Typer takes it.

    Args:
        command: its other parameters are arguments and options as usual. The fields of the dataclass are annotated as
            options, and have defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    plain = [each for each in inspect.signature(command).parameters.values() if each.name != GROUP]
    kind: Any = hints[GROUP]
    options = get_type_hints(kind, include_extras=True)
    defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}

    def flat(**given: Any) -> None:
        chosen = kind(**{name: given.pop(name) for name in options})
        command(**given, **{GROUP: chosen})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(annotation=hints[each.name], kind=keyword) for each in plain]
    parameters += [
        inspect.Parameter(name, keyword, default=defaults[name], annotation=annotation)
        for name, annotation in options.items()
    ]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {each.name: each.annotation for each in parameters}
    flat.__doc__, flat.__name__ = command.__doc__, command.__name__
    return flat
