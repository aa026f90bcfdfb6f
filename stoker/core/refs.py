"""App references: ``namespace/name@version:function``; all but the name may be absent."""

import re

from msgspec import Struct

from stoker.core.errors import InvalidRequest

_SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REF = re.compile(
    rf"(?:(?P<namespace>{_SLUG})/)?(?P<name>{_SLUG})(?:@(?P<version>[A-Za-z0-9]+))?(?::(?P<function>[A-Za-z_]\w*))?"
)


class AppRef(Struct, frozen=True, kw_only=True):
    """A parsed reference. Empty strings stand for what was not given; ``@latest`` counts as not given."""

    name: str
    namespace: str = ""
    version: str = ""
    function: str = ""

    def __str__(self) -> str:
        return (
            (f"{self.namespace}/" if self.namespace else "")
            + self.name
            + (f"@{self.version}" if self.version else "")
            + (f":{self.function}" if self.function else "")
        )


def parse_ref(text: str) -> AppRef:
    """Parse a reference.

    Raises:
        InvalidRequest: the text is no reference; the message shows the form.
    """
    match = _REF.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"Input validation failed: app: {text!r} is no app reference; write namespace/name, "
            "namespace/name@version or namespace/name@version:function"
        )
    parts = {key: value or "" for key, value in match.groupdict().items()}
    if parts["version"] == "latest":
        parts["version"] = ""
    return AppRef(**parts)
