"""Groups of queued tasks that the scheduler cannot tell apart: they share one waiting reason."""

import hashlib

import msgspec

from stoker.core.messages import TaskSpec

_encode = msgspec.json.Encoder().encode


def spec_group(spec: TaskSpec) -> str:
    """The group of a task: a hash of all that placement looks at, but not of its age."""
    subject = (spec.setup_key, spec.needs, spec.workers, spec.priority, spec.key_id)
    return hashlib.blake2b(_encode(subject), digest_size=12).hexdigest()
