"""A YAML mapping whose values know the lines that they stand on."""

from collections.abc import Iterator
from typing import Any, Final

import yaml

from stoker.manifest import LOADER, check_bounds

Path = tuple[str | int, ...]
_MERGE: Final = "tag:yaml.org,2002:merge"


class Document:
    """Values by path (`("resources", "gpu", 0)`), their lines, and the keys that are written twice."""

    def __init__(self, text: str) -> None:
        """Read a text.

        Raises:
            yaml.YAMLError: it is no YAML.
            BadManifest: it grows too much.
        """
        check_bounds(text)
        self.value: Any = yaml.load(text, Loader=LOADER)  # noqa: S506 - a safe one
        self.repeated: list[tuple[str, int]] = []
        self._lines: dict[Path, int] = {}
        node = yaml.compose(text, Loader=LOADER)
        if node is not None:
            self._visit(node, ())

    def line(self, *path: str | int) -> int:
        """The line of a value's key; of the nearest one around it where it is not there, 0 for none."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0) if path else 0

    def get(self, *path: str | int) -> Any:
        """A value; None where there is none."""
        value = self.value
        for part in path:
            if isinstance(part, str) and isinstance(value, dict):
                value = value.get(part)
            elif isinstance(part, int) and isinstance(value, list) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def has(self, *path: str) -> bool:
        """Whether a key is written, even if nothing stands behind it."""
        holder = self.get(*path[:-1])
        return isinstance(holder, dict) and path[-1] in holder

    def _visit(self, node: yaml.Node, path: Path) -> None:
        for name, line, value in _children(node):
            inner = (*path, name)
            if inner in self._lines:
                self.repeated.append((str(name), line))
            self._lines[inner] = line
            self._visit(value, inner)


def _children(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    """(key, line, value) of a mapping or sequence; those behind an alias too, bounded by `check_bounds`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                yield key.value, key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield index, value.start_mark.line + 1, value
