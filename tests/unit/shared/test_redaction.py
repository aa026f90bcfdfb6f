"""Secrets in what an app prints: whole, in chunks, cut, escaped, encoded."""

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.redaction import MIN_BYTES, Redactor, secret_looking

TOKEN = "tok-9f8e7d6c5b4a"
FILLER = " .:\n<>"
"""Characters that no secret and no label of these tests has."""

secrets = st.text("abcd0123", min_size=MIN_BYTES, max_size=24)
fillers = st.text(FILLER, max_size=6)
cuts = st.lists(st.integers(0, 400), max_size=20)


def fed(redactor, data, places):
    """What a stream shows of `data`, fed in chunks that are cut at `places`."""
    stream, shown, at = redactor.stream(), b"", 0
    for place in sorted(place % (len(data) + 1) for place in places):
        shown += stream.feed(data[at:place])
        at = place
    return shown + stream.feed(data[at:]) + stream.finish()


def visible_part(secret, shown):
    """The length of the longest part of a secret in a text."""
    return max(
        (
            end - start
            for start in range(len(secret))
            for end in range(start, len(secret) + 1)
            if secret[start:end] in shown
        ),
        default=0,
    )


def plain(text):
    """A text without its labels."""
    for name in "ABCDE":
        text = text.replace(f"[redacted:{name}]", "")
    return text


@given(st.lists(secrets, min_size=1, max_size=5), st.data())
def test_no_secret_is_visible_however_the_text_is_cut(values, data):
    parts = data.draw(st.lists(st.tuples(fillers, st.sampled_from(values)), max_size=8))
    text = "".join(filler + value for filler, value in parts) + data.draw(fillers)
    shown = fed(Redactor(dict(zip("ABCDE", values, strict=False))), text.encode(), data.draw(cuts)).decode()
    assert not set(plain(shown)) - set(FILLER)
    assert [c for c in plain(shown) if c in FILLER] == [c for c in text if c in FILLER]


@given(secrets, fillers, cuts, st.data())
def test_of_a_stream_that_ends_within_a_secret_no_more_than_half_is_visible(value, filler, places, data):
    end = data.draw(st.integers(0, len(value)))
    text = f"{filler}{value}{filler}{value[:end]}"
    shown = plain(fed(Redactor({"A": value}), text.encode(), places).decode())
    assert visible_part(value, shown) <= len(value) // 2


@given(st.lists(secrets, min_size=1, max_size=5), st.text("abcd01 \n", max_size=200), cuts)
def test_chunks_change_nothing(values, text, places):
    redactor = Redactor(dict(zip("ABCDE", values, strict=False)))
    assert fed(redactor, text.encode(), []) == fed(redactor, text.encode(), places)


@given(st.binary(max_size=300), cuts)
def test_what_holds_no_secret_passes_unchanged(data, places):
    if TOKEN.encode() not in data:
        assert data == fed(Redactor({"A": TOKEN * 2}), data, places)


def test_a_whole_line_never_waits_for_the_next():
    stream = Redactor({"A": TOKEN}).stream()
    assert stream.feed(b"a line that ends as the token begins: tok\n") == (
        b"a line that ends as the token begins: tok\n"
    )
    assert stream.feed(b"tok") == b""
    assert stream.feed(b"en\n") == b"token\n"


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda v: v, id="plain"),
        pytest.param(lambda v: json.dumps({"key": v}), id="json"),
        pytest.param(lambda v: repr([v]), id="repr"),
        pytest.param(lambda v: f"?key={quote(v)}&x", id="url"),
        pytest.param(lambda v: f"?key={quote(v, safe='')}&x", id="url-all"),
        pytest.param(lambda v: f"?key={quote_plus(v)}&x", id="form"),
        pytest.param(
            lambda v: re.sub("%..", lambda found: found[0].lower(), quote(v, safe="")), id="url-small"
        ),
        pytest.param(lambda v: base64.b64encode(v.encode()).decode(), id="base64"),
        pytest.param(lambda v: "Basic " + base64.b64encode(f"user:{v}".encode()).decode(), id="basic"),
        pytest.param(lambda v: base64.b64encode(f"me:{v}\nrest".encode()).decode(), id="base64-within"),
        pytest.param(lambda v: base64.urlsafe_b64encode(f"x{v}".encode()).decode(), id="base64-url"),
    ],
)
@pytest.mark.parametrize("value", [TOKEN, 'q"uo/te é\\key 17', "p@ss/w=rd+a&b", "secret"])
def test_usual_forms_are_hidden(form, value):
    shown = Redactor({"A": value}).text(f"before {form(value)} behind")
    assert shown.startswith("before ")
    assert shown.endswith(" behind")
    assert "[redacted:A]" in shown
    assert value not in shown
    assert quote(value) not in shown


def test_a_value_of_several_lines_is_hidden_line_by_line():
    key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\r\nabc\nq83vEjRWeJ\n-----END KEY-----\n"
    shown = Redactor({"PEM": key}).text(f"got\n{key}and {json.dumps(key)}")
    assert not {"BEGIN", "MIIE", "q83v"} & set(shown.replace("-", " ").split())
    assert "MIIE" not in shown
    assert shown.startswith("got\n[redacted:PEM]\n[redacted:PEM]\r\nabc\n[redacted:PEM]\n")


def test_of_overlapping_secrets_no_part_stays():
    redactor = Redactor({"A": "abcdef", "B": "abcdefghijkl", "C": "efghijklmn"})
    assert redactor.text("x abcdef y abcdefghijkl z abcdefghijklmn.") == (
        "x [redacted:A] y [redacted:B] z [redacted:B]."
    )


def test_short_values_are_left_alone():
    redactor = Redactor({"A": "12345"})
    assert not redactor
    assert redactor.text("12345") == "12345"


def test_text_that_is_not_unicode_survives():
    assert Redactor({"A": TOKEN}).text(f"\ud800 {TOKEN}").endswith("[redacted:A]")
    assert fed(Redactor({"A": TOKEN}), b"\xff\xfe " + TOKEN.encode(), [3, 7]) == b"\xff\xfe [redacted:A]"


def test_a_long_secret_and_many_beginnings_of_it():
    value = "a" * 60_000 + "b"
    shown = fed(
        Redactor({"A": value}), b"a" * 5000 + b"\n" + value.encode() + b"\n", [100, 5001, 9000, 40_000]
    )
    assert shown == b"a" * 5000 + b"\n[redacted:A]\n"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("hf_token", True),
        ("OPENAI_API_KEY", True),
        ("APIKEY", True),
        ("DB_PASSWORD_FILE", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("GOOGLE_CREDENTIALS", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("KEYMAP", False),
        ("HTTP_PROXY", False),
    ],
)
def test_names_that_say_that_a_value_is_secret(name, secret):
    assert secret == bool(secret_looking({name: "value"}))
