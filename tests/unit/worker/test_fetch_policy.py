"""Which URLs a worker fetches, how it reaches them, and what their content is kept under."""

import httpx
import pytest

from stoker.core.addresses import AllowList
from stoker_worker.fetch_policy import FetchFailed, FetchPolicy, shown

PUBLIC = "https://stoker.example"
INTERNAL = "http://10.0.0.2:8787"
STORED = "/files/01hfile/01hsecret/my%20photo.png"


def policy(*allow, stores=(INTERNAL, PUBLIC)):
    return FetchPolicy(AllowList.parse(allow), lambda: list(stores))


def judge(url, *allow, **options):
    return policy(*allow, **options).judge(httpx.URL(url))


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "file:///etc/passwd", "gopher://a", "http:///x", "/a", "inf://files/a"]
)
def test_only_http_and_https_are_fetched(url):
    with pytest.raises(FetchFailed, match="is no http or https address"):
        judge(url)


@pytest.mark.parametrize("base", [PUBLIC, INTERNAL])
def test_a_file_of_the_own_store_is_reached_by_the_internal_address(base):
    target = judge(base + STORED)
    assert str(target.url) == INTERNAL + STORED
    assert target.any_address
    assert policy().permits(target, "10.0.0.2")


def test_the_control_plane_says_under_which_address_callers_know_the_store():
    rules = policy(stores=[INTERNAL])
    url = httpx.URL("https://other.example" + STORED)
    assert not rules.judge(url).any_address
    assert str(rules.judge(url, "https://other.example").url) == INTERNAL + STORED


def test_a_store_below_a_path_is_known_by_it():
    stores = ("http://10.0.0.2:8787/inner", "https://stoker.example/stoker/")
    target = judge("https://stoker.example/stoker" + STORED, stores=stores)
    assert str(target.url) == "http://10.0.0.2:8787/inner" + STORED
    assert not judge("https://stoker.example" + STORED, stores=stores).any_address


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.2:8788" + STORED,  # another port
        "https://10.0.0.2:8787" + STORED,  # another scheme
        "http://10.0.0.3:8787" + STORED,  # another host
        INTERNAL + "/internal/tasks/t/bundle",
        INTERNAL + "/tasks",
        INTERNAL + "/files/a/b",
        INTERNAL + "/files/a/b/..",
        INTERNAL + "/files/a/b/%2e%2e",
        INTERNAL + "/files/a/b/..%2f..%2fkeys",
        INTERNAL + "/files/../internal/x",
        INTERNAL + "/files/%2e%2e/keys/x",
        INTERNAL + "/x/files/a/b/c",
    ],
)
def test_the_rest_of_the_stores_host_is_not_trusted(url):
    target = judge(url)
    assert not target.any_address
    assert not policy().permits(target, "10.0.0.2")


def test_addresses_of_other_hosts_are_judged_one_by_one():
    rules = policy("192.168.0.0/16")
    target = rules.judge(httpx.URL("http://any.example/x"))
    assert rules.permits(target, "93.184.216.34")
    assert rules.permits(target, "192.168.3.4")
    assert not rules.permits(target, "10.0.0.2")
    assert not rules.permits(target, "::ffff:10.0.0.2")
    assert not rules.permits(target, "no address")


def test_an_allowed_host_may_have_any_address():
    rules = policy("files.lan:9000")
    assert rules.permits(rules.judge(httpx.URL("http://files.lan:9000/x")), "10.0.0.9")
    assert not rules.permits(rules.judge(httpx.URL("http://files.lan/x")), "10.0.0.9")


def test_what_could_be_other_content_is_kept_apart():
    urls = [
        "http://a.example/x?sig=1", "http://a.example/x?sig=2", "http://a.example/x", "https://a.example/x?sig=1",
        "http://a.example:8080/x?sig=1", "http://u:1@a.example/x?sig=1", "http://u:2@a.example/x?sig=1",
        "http://b.example/x?sig=1", INTERNAL + STORED, INTERNAL + STORED.replace("secret", "guess"),
    ]  # fmt: skip
    assert len({judge(url).key for url in urls}) == len(urls)


def test_one_file_has_one_key_under_each_of_its_addresses():
    keys = {judge(base + STORED).key for base in (PUBLIC, INTERNAL, PUBLIC + ":443")}
    assert len(keys) == 1
    assert judge("http://a.example/x#part").key == judge("http://A.example:80/x").key


def test_messages_show_no_secrets():
    url = httpx.URL("https://user:pass@a.example:8080/x/y.png?signature=abc#z")
    assert shown(url) == "https://a.example:8080/x/y.png"
    assert len(shown(httpx.URL("http://a/" + "x" * 1000))) < 310
