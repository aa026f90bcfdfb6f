"""Which versions of the Redis protocol understand each other: neighbours do, so that a system is updated part by part.

`PROTOCOL_VERSION` grows when a worker daemon and a control plane of two releases would misunderstand each other's
scripts or messages. A release that raises it still speaks the one before, and says so in `PROTOCOL_OLDEST`.
"""

from typing import Final

from msgspec import Struct

from stoker import __version__

PROTOCOL_VERSION: Final = 1
PROTOCOL_OLDEST: Final = 1
"""The oldest version that this release still works with: as a rule `PROTOCOL_VERSION` - 1."""


class Speaks(Struct, frozen=True, kw_only=True):
    """What one side speaks. `release` is for people."""

    version: int
    oldest: int
    release: str


OURS: Final = Speaks(version=PROTOCOL_VERSION, oldest=PROTOCOL_OLDEST, release=__version__)


def agree(one: Speaks, other: Speaks) -> bool:
    """Whether two sides can work together: each takes the other's version."""
    return one.version >= other.oldest and other.version >= one.oldest


def disagreement(engine: str, worker: Speaks, control: Speaks) -> str:
    """Why a worker daemon and a control plane cannot work together, and what to do; '' when they can."""
    if agree(worker, control):
        return ""
    older = "worker daemon" if worker.version < control.version else "control plane"
    return (
        f"The worker daemon '{engine}' (release {worker.release}) speaks version {worker.version} of the protocol and "
        f"takes {worker.oldest} or newer; the control plane (release {control.release}) speaks {control.version} and "
        f"takes {control.oldest} or newer. Update the {older}, one release after the other."
    )
