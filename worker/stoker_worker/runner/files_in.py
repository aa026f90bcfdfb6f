"""Files that the daemon fetched, in the hands of old SDKs.

The daemon gives a file as a map with `uri` and `path`. A File that is a plain class takes the path. In older SDKs
it is a pydantic model, which goes by the uri whatever path it has: it downloads it, or takes it for a path.
"""

import sys
import typing

import values

_HOOK = "model_post_init"
_MARK = "_stoker_keeps_paths"


def keep_given_paths() -> None:
    """Have the File of an old SDK, if the app has loaded one, leave a file alone whose path it was given."""
    kind: typing.Any = getattr(sys.modules.get("inferencesh"), "File", None)
    resolve = getattr(kind, _HOOK, None)
    if not values.is_model(kind) or resolve is None or getattr(resolve, _MARK, False):
        return

    def resolve_without_path(file: typing.Any, context: object) -> None:
        uri = file.uri
        if file.path:
            file.uri = None
        resolve(file, context)
        file.uri = uri

    setattr(resolve_without_path, _MARK, True)
    setattr(kind, _HOOK, resolve_without_path)
