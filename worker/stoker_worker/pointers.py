"""Places in a JSON document, as JSON pointers (RFC 6901). Pure."""

from typing import Any


def get_at(document: Any, pointer: str) -> Any:
    """The value at a pointer; "" is the whole document.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the pointer leads nowhere.
    """
    found = document
    for part in _parts(pointer):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def put_at(document: Any, pointer: str, value: object) -> Any:
    """`document` with the value at a pointer replaced in place; "" is the whole document.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the pointer leads nowhere.
    """
    if not pointer:
        return value
    *path, last = _parts(pointer)
    holder = document
    for part in path:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    if isinstance(holder, list):
        holder[int(last)] = value
    else:
        holder[last] = value
    return document


def dotted(pointer: str) -> str:
    """A pointer as people write a field: /images/0 -> images.0."""
    return ".".join(_parts(pointer))


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
