"""What every client is asked to do: the steps that the drivers know, with their tasks."""

from typing import Any

ECHO = "infsh/echo"
SLOW = "examples/slow"
OCR = "examples/ocr"

# Line and paragraph separators that JSON allows and that line-wise readers stumble over, and a non-BMP sign.
ODD_TEXT = "sep\u2028next\u0085para\u2029é 🔥"

Step = dict[str, Any]


def task(app: str, **given: Any) -> dict[str, Any]:
    return {"app": app, "infra": "private", "input": given}


def everyday_steps(numbers: tuple[int, int, int]) -> list[Step]:
    """The calls that people make all day; each client does them all in one process."""
    return [
        {"name": "run", "do": "run", "params": task(ECHO, message="hi there")},
        {"name": "get", "do": "get", "params": task(ECHO, message="later"), "terminal": list(numbers)},
        {"name": "stream", "do": "stream", "params": task(SLOW, seconds=0.6, lines=3)},
        {
            "name": "cancel",
            "do": "stream",
            "params": task(SLOW, seconds=30, lines=60),
            "cancel_when_logged": True,
        },
        {"name": "failing", "do": "run", "params": task(SLOW, seconds=0.1, lines=1, fail=True)},
        {"name": "failing_stream", "do": "stream", "params": task(SLOW, seconds=0.1, lines=1, fail=True)},
        {"name": "wrong_key", "do": "run", "params": task(ECHO, message="x"), "key": "inf_wrong"},
        {"name": "unknown_app", "do": "run", "params": task("infsh/no-such-app", message="x")},
        {"name": "wrong_input", "do": "run", "params": task(ECHO, message={"not": "a text"})},
        {"name": "missing_input", "do": "run", "params": {"app": ECHO, "infra": "private"}},
        {"name": "odd_text", "do": "run", "params": task(SLOW, seconds=0, lines=1, text=ODD_TEXT)},
        {"name": "odd_output", "do": "run", "params": task(ECHO, message=ODD_TEXT)},
    ]
