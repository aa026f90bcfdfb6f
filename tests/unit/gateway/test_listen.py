"""The socket that the gateway serves on."""

import contextlib
import socket
from urllib.parse import urlsplit

import pytest

from stoker.listening import reached_at
from stoker.settings import GatewaySettings
from stoker_gateway.main import listen, own_url


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


def has_ipv6():
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", *(pytest.param(host, marks=needs_ipv6) for host in ("::1", "::"))]
)
def test_what_listens_is_reached_by_its_url(tmp_path, host):
    with listen(GatewaySettings(data_dir=tmp_path, host=host, port=0)) as listener:
        url = urlsplit(f"http://{reached_at(host)}:{listener.getsockname()[1]}")
        with socket.create_connection((url.hostname, url.port)):
            pass


@needs_ipv6
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no socket for both families")
def test_every_address_is_that_of_both_families(tmp_path):
    with listen(GatewaySettings(data_dir=tmp_path, host="::", port=0)) as listener:
        for loopback in ("127.0.0.1", "::1"):
            with socket.create_connection((loopback, listener.getsockname()[1])):
                pass


def test_a_port_that_is_taken_is_named(tmp_path):
    with listen(GatewaySettings(data_dir=tmp_path, port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen(GatewaySettings(data_dir=tmp_path, port=port))


@needs_ipv6
def test_the_address_of_a_gateway_has_its_ipv6_host_in_brackets(tmp_path):
    settings = GatewaySettings(data_dir=tmp_path, host="::1", port=0)
    with listen(settings) as listener:
        assert own_url(settings, listener) == f"http://[::1]:{listener.getsockname()[1]}"
