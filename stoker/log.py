"""Logging of every part: structlog events with fields, one JSON object a line or coloured text, on stderr.

An event is a member of `stoker.core.events.Event`; values are fields, never part of the text. Lines of
libraries that use the standard library's logging come out in the same shape, from WARNING up.
"""

import logging
import sys
from typing import Any, Final, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from stoker.lossy_stream import LossyStream

Logger = FilteringBoundLogger

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(part: str, *, json: bool = True, level: str = "info") -> None:
    """Set the process up for logging; call it once, before the first event.

    Args:
        part: name of the part, in every line.
        json: one JSON object a line; else text for people, coloured on a terminal.
        level: least severity that is logged: debug, info, warning or error.
    """
    stream = cast("TextIO", LossyStream(lambda: sys.stderr))
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _part_adder(part),
    ]
    if json:
        renderers: list[Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ]
    else:
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], logging.WARNING), force=True)


def get_logger(part: str) -> Logger:
    """A logger; `part` names the module or component in every line of it."""
    return cast("Logger", structlog.get_logger(component=part))


def _part_adder(part: str) -> Processor:
    def add_part(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["part"] = part
        return event

    return add_part


def _encode(event: Any, **_options: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
