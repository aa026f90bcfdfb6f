"""No package beside it, no __init__.py, no SDK: dataclasses and a sync generator."""

from dataclasses import dataclass
from typing import Iterator, Optional


@dataclass
class Ask:
    text: str
    times: int = 1


@dataclass
class Answer:
    text: str
    note: Optional[str] = None


class App:
    def run(self, ask: Ask, metadata=None) -> Iterator[Answer]:
        """Repeat a text."""
        for number in range(1, ask.times + 1):
            yield Answer(text=ask.text * number)
