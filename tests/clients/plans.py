"""What every client is asked to do: the steps that the drivers know, with their tasks."""

from typing import Any

ECHO = "infsh/echo"
SLOW = "examples/slow"
OCR = "examples/ocr"

# Line and paragraph separators that JSON allows and that line-wise readers stumble over, and a non-BMP sign.
ODD_TEXT = "sep\u2028next\u0085para\u2029é 🔥"

STREAMED_S = 1.5
"""Of a run that is followed: longer than a client takes from its answer to its stream."""

Step = dict[str, Any]


def task(app: str, **given: Any) -> dict[str, Any]:
    return {"app": app, "infra": "private", "input": given}


def everyday_steps(numbers: tuple[int, int, int], base_url: str, upload: Step) -> list[Step]:
    """The calls that people make all day, and the traps; each client does them all in one process.

    Args:
        numbers: completed, failed, cancelled, as the client knows them.
        base_url: of the system; a step tries it with a slash at its end.
        upload: what the upload step needs: `path`, `filename`, `from_path`.
    """
    return [
        {"name": "run", "do": "run", "params": task(ECHO, message="hi there")},
        {"name": "get", "do": "get", "params": task(ECHO, message="later"), "terminal": list(numbers)},
        {"name": "stream", "do": "stream", "params": task(SLOW, seconds=STREAMED_S, lines=3)},
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
        {"name": "again", "do": "wait_again", "params": task(ECHO, message="once")},
        {"name": "slash", "do": "run", "params": task(ECHO, message="slash"), "base_url": f"{base_url}/"},
        {"name": "upload", "do": "upload", **upload},
    ]


def ending_steps(numbers: tuple[int, int, int]) -> list[Step]:
    """One task for each ending."""
    wanted = ("run", "get", "cancel", "failing")
    return [step for step in everyday_steps(numbers, "", {}) if step["name"] in wanted]
