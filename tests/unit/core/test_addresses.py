"""Which addresses belong to the open internet, and what an operator may allow beside them."""

from ipaddress import ip_address

import pytest

from stoker.core.addresses import AllowList, is_public


@pytest.mark.parametrize("text", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_addresses_of_the_open_internet_are_public(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.1", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1",
        "168.63.129.16", "224.0.0.1", "224.0.1.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
        "2001::1", "100::1", "3fff::1",
    ],
)  # fmt: skip
def test_addresses_of_the_inside_are_not_public(text):
    assert not is_public(ip_address(text))


def test_a_host_is_allowed_with_its_port_or_with_all():
    allow = AllowList.parse(["files.lan", "Other.lan:9000"])
    assert allow.has_host("FILES.lan", 1)
    assert allow.has_host("other.lan", 9000)
    assert not allow.has_host("other.lan", 80)
    assert not allow.has_host("sub.files.lan", 80)


def test_networks_and_addresses_are_allowed_whatever_the_host_is_called():
    allow = AllowList.parse(["10.0.0.0/8", "192.168.1.7", "fd00::/8", "[::1]:80"])
    assert allow.has_address(ip_address("10.9.8.7"))
    assert allow.has_address(ip_address("::ffff:10.9.8.7"))
    assert allow.has_address(ip_address("fd12::1"))
    assert allow.has_address(ip_address("192.168.1.7"))
    assert not allow.has_address(ip_address("192.168.1.8"))
    assert not allow.has_address(ip_address("::1"))
    assert allow.has_host("::1", 80)
    assert not allow.has_host("::1", 81)


def test_an_address_with_a_port_is_a_host():
    allow = AllowList.parse(["127.0.0.1:8000"])
    assert allow.has_host("127.0.0.1", 8000)
    assert not allow.has_address(ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    "entry", ["", "http://a", "a/b", "10.0.0.0/99", "a:0", "a:x", "a:70000", "*.lan", "a b"]
)
def test_anything_else_is_refused_by_name(entry):
    with pytest.raises(ValueError, match="is no host, host:port, address or network"):
        AllowList.parse(["fine", entry])
