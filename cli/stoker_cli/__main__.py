"""The entry of the `stoker` command; `python -m stoker_cli` is the same."""

from typing import NoReturn

from stoker.imports import uncollected


def start() -> NoReturn:
    """Import the command line, and run it."""
    with uncollected():
        from stoker_cli.main import main  # noqa: PLC0415 - this is what happens here
    main()


if __name__ == "__main__":
    start()
