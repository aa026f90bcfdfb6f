"""The socket that the gateway serves on."""

import socket

import pytest

from stoker.settings import GatewaySettings
from stoker_gateway.main import listen


@pytest.fixture(params=["its own", "an inherited one"])
def listener(request, tmp_path):
    fd = -1
    if request.param == "an inherited one":
        fd = socket.create_server(("127.0.0.1", 0)).detach()
    with listen(GatewaySettings(data_dir=tmp_path, port=0, listen_fd=fd)) as made:
        yield made


def test_what_it_accepts_sends_at_once(listener):
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
