"""The setup key: which instances can serve which tasks.

Two tasks share an instance when their keys are equal: same app version, same setup after the schema's
defaults were filled in. The setup is compared as canonical JSON (RFC 8785), so key order and the spelling
of numbers (1 and 1.0) do not matter; texts are compared by code point, without Unicode normalisation.
"""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import rfc8785

from stoker.core.errors import InvalidRequest
from stoker.core.messages import SetupKey

_COMPOSED = ("anyOf", "oneOf", "allOf", "patternProperties", "if", "unevaluatedProperties")
_KEY_HEX_DIGITS = 32  # 128 bits: no two setups meet by chance


def setup_key(version_id: str, setup: Mapping[str, Any], secrets_digest: str = "") -> SetupKey:
    """Hash an app version and a complete setup.

    Args:
        version_id: content hash of the app version.
        setup: JSON values, defaults already filled in (`fill_defaults`).
        secrets_digest: digest of the resolved secrets; empty when the app declares none.

    Raises:
        InvalidRequest: the setup holds what JSON cannot: a non-finite number, an integer beyond 2^53.
    """
    subject: dict[str, Any] = {"setup": setup, "version": version_id}
    if secrets_digest:
        subject["secrets"] = secrets_digest
    try:
        canonical = rfc8785.dumps(subject)
    except rfc8785.CanonicalizationError as error:
        raise InvalidRequest(
            f"Input validation failed: setup: {error}. Use integers up to 2^53 and finite numbers."
        ) from error
    return SetupKey(hashlib.sha256(canonical).hexdigest()[:_KEY_HEX_DIGITS])


def fill_defaults(schema: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the defaults of a JSON schema's properties, at every depth of given objects.

    References into the schema's own ``$defs`` are followed. Properties of `value` that the schema does not
    name are kept.
    """
    return _fill(schema, schema, dict(value))


def known_only(schema: Mapping[str, Any], value: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`value` without what its schema does not know, so that it cannot make another instance; and what that was.

    The app ignores such values, unless its schema says otherwise: `additionalProperties` true (or a schema) keeps
    them, false keeps them too, for the validator to refuse. An empty schema knows nothing.

    Returns:
        The rest, and the paths of what was left out: `precision`, `model.flag`.
    """
    if not schema:
        return {}, sorted(value)
    dropped: list[str] = []
    return _known(schema, schema, value, "", dropped), dropped


def _known(
    root: Mapping[str, Any],
    schema: Mapping[str, Any],
    value: Mapping[str, Any],
    path: str,
    dropped: list[str],
) -> dict[str, Any]:
    found = resolve(root, schema)
    properties = found.get("properties", {})
    # Composed schemas may know more than their own properties; the validator decides.
    open_ = "additionalProperties" in found or any(word in found for word in _COMPOSED)
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if name in properties:
            inner = resolve(root, properties[name])
            deeper = isinstance(item, Mapping) and inner.get("properties")
            kept[name] = _known(root, inner, item, f"{path}{name}.", dropped) if deeper else item
        elif open_:
            kept[name] = item
        else:
            dropped.append(path + name)
    return kept


def _fill(root: Mapping[str, Any], schema: Mapping[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    for name, declared in resolve(root, schema).get("properties", {}).items():
        prop = resolve(root, declared)
        if name not in value:
            if "default" in declared:
                value[name] = deepcopy(declared["default"])
            elif "default" in prop:
                value[name] = deepcopy(prop["default"])
        if isinstance(value.get(name), Mapping) and prop.get("properties"):
            value[name] = _fill(root, prop, dict(value[name]))
    return value


def resolve(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow ``$ref`` and a lone ``allOf`` (how pydantic writes a reference with a default)."""
    if len(schema.get("allOf", ())) == 1:
        schema = schema["allOf"][0]
    seen: set[str] = set()
    while isinstance(ref := schema.get("$ref"), str) and ref.startswith("#/") and ref not in seen:
        seen.add(ref)
        target: Any = root
        for part in ref[2:].split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {})
        schema = target
    return schema
