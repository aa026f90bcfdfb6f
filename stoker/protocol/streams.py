"""Decoding of Redis replies, in the forms of both protocol versions (RESP2 and RESP3)."""

from typing import Any

from stoker.core.ids import may_be_id

Entry = tuple[bytes, dict[bytes, bytes]]


def mapping(reply: Any) -> dict[bytes, bytes]:
    """A hash, from a map or a flat list."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))


def pairs(reply: Any) -> list[tuple[bytes, float]]:
    """Members with scores, from nested pairs or a flat list."""
    if reply and isinstance(reply[0], (list, tuple)):
        return [(member, float(score)) for member, score in reply]
    return [(reply[i], float(reply[i + 1])) for i in range(0, len(reply), 2)]


def id_of(member: bytes) -> str:
    """A member of an index that engines may add to; '' for what is no id, and would lead to another key or to none."""
    try:
        text = member.decode()
    except UnicodeDecodeError:
        return ""
    return text if may_be_id(text) else ""


def entries(reply: Any) -> list[Entry]:
    """Stream entries as (id, fields), without those deleted meanwhile."""
    return [(entry[0], mapping(entry[1])) for entry in reply or () if entry[1] is not None]


def stream(reply: Any) -> list[Entry]:
    """The entries of the one stream that an XREAD was about."""
    if not reply:
        return []
    if isinstance(reply, dict):
        (found,) = reply.values()
        # Some client versions wrap the list of entries once more.
        return entries(found[0] if found and found[0] and isinstance(found[0][0], (list, tuple)) else found)
    return entries(reply[0][1])
