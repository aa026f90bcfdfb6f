"""Apps and versions as clients read them."""

from collections.abc import Mapping
from typing import Any

from stoker.core.apps import App, AppVersion
from stoker_gateway.dto import iso

IMAGES = ("card", "thumbnail", "banner")


def app_dto(app: App, version: AppVersion | None) -> dict[str, Any]:
    """An app with one of its versions, its current one as a rule."""
    return {
        "id": app.id,
        "short_id": app.short_id,
        "created_at": iso(app.created_ms),
        "updated_at": iso(app.updated_ms),
        "user_id": app.owner_id,
        "visibility": app.visibility,
        "namespace": app.namespace,
        "name": app.name,
        "title": app.title,
        "description": app.description,
        "agent_description": app.agent_description,
        "category": app.category,
        "images": dict.fromkeys(IMAGES, "") | app.images,
        "status": app.status,
        "status_message": app.status_message,
        "status_changed_at": iso(app.status_changed_ms) if app.status_changed_ms else None,
        "keep_alive_s": app.keep_alive_s,  # stronger than that of the version
        "version_id": app.current_version_id or None,
        "alias_of": app.alias_of or None,
        "version": None if version is None else version_dto(version),
    }


def version_dto(version: AppVersion) -> dict[str, Any]:
    """A version; `resources` in bytes."""
    needs, default = version.needs, version.functions.get(version.default_function)
    return {
        "id": version.id,
        "short_id": version.short_id,
        "created_at": iso(version.created_ms),
        "updated_at": iso(version.created_ms),
        "app_id": version.app_id,
        "repository": "",
        "flow_version_id": version.flow.version_id if version.flow else None,
        "kernel": version.kernel,
        "functions": version.functions,
        "default_function": version.default_function,
        "setup_schema": version.setup_schema,
        "input_schema": default.input_schema if default else {},
        "output_schema": default.output_schema if default else {},
        "variants": {},
        "env": version.env,
        "required_secrets": version.secrets,
        "required_integrations": version.integrations,
        "resources": {
            "gpu": {"count": needs.gpu_count, "vram": needs.vram_bytes, "type": needs.gpu_type},
            "ram": needs.ram_bytes,
        },
        "keep_alive_s": version.keep_alive_s,
        "checksum": version.id,
        "metadata": version.metadata,
    }


def license_dto(app: App) -> Mapping[str, Any]:
    """The text that users of an app agree to."""
    return {
        "id": app.id,
        "short_id": app.short_id,
        "created_at": iso(app.created_ms),
        "updated_at": iso(app.updated_ms),
        "app_id": app.id,
        "user_id": app.owner_id,
        "license": app.license,
    }
