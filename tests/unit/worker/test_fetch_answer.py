"""What headers say of a file."""

import base64
import hashlib

import httpx
import pytest

from stoker_worker import fetch_answer
from stoker_worker.fetch_answer import Version

DIGEST = hashlib.sha256(b"x").digest()
TEXT = base64.b64encode(DIGEST).decode()


def answer(status=200, **headers):
    return httpx.Response(status, headers={name.replace("_", "-"): text for name, text in headers.items()})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"repr_digest": f"sha-256=:{TEXT}:"}, ("sha256", DIGEST)),
        ({"digest": f"md5=abcd, SHA-256={TEXT}"}, ("sha256", DIGEST)),
        ({"x_amz_checksum_sha256": TEXT}, ("sha256", DIGEST)),
        ({"x_amz_checksum_sha256": f"{TEXT}-3"}, None),
        ({"repr_digest": "sha-256=:?:"}, None),
        ({"digest": "md5=abcd"}, None),
        ({}, None),
    ],
)
def test_a_hash_of_the_whole_file_is_known_where_it_is_stated(given, expected):
    assert fetch_answer.stated_hash(answer(**given).headers) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("private, max-age=31536000, immutable", 60),
        ("max-age=5", 5),
        ("s-maxage=100", 0),
        ("no-cache, max-age=100", 0),
        ("no-store", None),
        ("", 0),
    ],
)
def test_a_copy_serves_as_long_as_the_server_says_and_at_most_a_minute(given, expected):
    assert fetch_answer.fresh_s(answer(cache_control=given).headers) == expected


def test_lengths_of_wholes_and_parts():
    assert fetch_answer.whole_length(answer(content_length="5")) == 5
    assert fetch_answer.whole_length(answer()) is None
    assert fetch_answer.whole_length(answer(content_length="9" * 5000)) is None
    assert fetch_answer.whole_length(answer(206, content_range="bytes 3-9/10")) == 10
    assert fetch_answer.whole_length(answer(206, content_range="bytes 3-9/*")) is None
    assert fetch_answer.starts_at(answer(206, content_range="bytes 3-9/10")) == 3
    assert fetch_answer.starts_at(answer(206, content_range="what")) is None
    assert fetch_answer.starts_at(answer()) == 0


def test_only_an_exact_version_proves_that_a_rest_belongs():
    assert Version(etag='"1"', modified="Mon").exact == '"1"'
    assert Version(etag='W/"1"', modified="Mon").exact == "Mon"
    assert Version(etag='W/"1"').exact == ""
    assert Version(etag='W/"1"').conditions() == {"if-none-match": 'W/"1"'}
    assert Version(modified="Mon").conditions() == {"if-modified-since": "Mon"}
    assert not Version().known


def test_a_type_that_says_nothing_is_no_type():
    assert fetch_answer.content_type(answer(content_type="Image/PNG; charset=x").headers) == "image/png"
    assert fetch_answer.content_type(answer(content_type="application/octet-stream").headers) == ""


def test_the_wait_that_a_server_asks_for_is_bounded():
    assert fetch_answer.retry_after_s(answer(retry_after="3").headers) == 3
    assert fetch_answer.retry_after_s(answer(retry_after="99999").headers) == 30
    assert fetch_answer.retry_after_s(answer(retry_after="tomorrow").headers) == 0
