"""The refusal of a worker daemon by the control plane's version."""

from stoker.core.errors import IncompatibleVersion, ProtocolRefusal
from stoker.core.messages import EngineInfo
from stoker.core.protocol_version import Speaks, disagreement


def refused(info: EngineInfo, refusal: ProtocolRefusal) -> IncompatibleVersion:
    """What to raise for a registration that the control plane's version forbids."""
    detail = refusal.fields["detail"]
    version, oldest, release = (
        (part.decode() for part in detail) if isinstance(detail, list) else ("0", "0", "?")
    )
    control = Speaks(version=int(version), oldest=int(oldest), release=release)
    return IncompatibleVersion(disagreement(info.id, info.speaks, control))
