import contextlib
from types import SimpleNamespace

import pytest
from litestar import get

from stoker.core.errors import Bug
from stoker.core.scopes import Scope
from stoker.settings import GatewaySettings
from stoker_gateway import app as gateway_app
from stoker_gateway.access import check_declared, needs, open_to_all


@get("/silent")
async def silent() -> None: ...


@get("/declared")
async def declared() -> None: ...


def test_a_route_that_declares_no_scope_is_not_served(monkeypatch):
    monkeypatch.setattr(gateway_app.health, "ROUTES", [*gateway_app.health.ROUTES, silent])
    services = SimpleNamespace(settings=GatewaySettings(), store=None, base_url="http://x")
    with pytest.raises(Bug, match="/silent do not say which scope"):
        gateway_app.build(services, contextlib.nullcontext)


def test_a_route_that_declares_one_is_served():
    check_declared(needs(Scope.APPS_READ, declared))
    check_declared(open_to_all(declared))
