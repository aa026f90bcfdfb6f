"""The forms of an address of Redis, and what is no address."""

import pytest

from stoker.server_address import parse_redis


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/2?x=y", "unix:///a/b%20c?password=x"])
def test_one_server_is_left_to_the_library(url):
    address = parse_redis(url)
    assert (address.kind, address.login, address.hosts) == ("", url, ())


def test_sentinels_with_everything():
    url = "rediss+sentinel://u:p%40@a:1,b,[::1]:5/prim/2?sentinel_username=s&sentinel_password=t&ssl_ca_certs=/c"
    address = parse_redis(url)
    assert address.hosts == (("a", 1), ("b", 26379), ("::1", 5))
    assert (address.kind, address.primary) == ("sentinel", "prim")
    assert address.login == "rediss://u:p%40@host/2?ssl_ca_certs=%2Fc"
    assert address.sentinel_options == {"username": "s", "password": "t"}


def test_nodes_of_a_cluster():
    address = parse_redis("redis+cluster://:secret@a,[::1],b:7")
    assert address.hosts == (("a", 6379), ("::1", 6379), ("b", 7))
    assert (address.kind, address.login) == ("cluster", "redis://:secret@host")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://h", "no known form"),
        ("redis+other://h", "no known form"),
        ("unix+cluster:///x", "no known form"),
        ("h:6379", "no known form"),
        ("redis+sentinel://h:1", "name of the primary is missing"),
        ("redis+sentinel://h:1/name/1/2", "too long"),
        ("redis+cluster://h/1", "no databases"),
        ("redis+cluster://h:x", "not host:port"),
        ("redis+cluster://a,:7", "not host:port"),
    ],
)
def test_what_is_no_address_is_told(url, told):
    with pytest.raises(ValueError, match=told):
        parse_redis(url)
