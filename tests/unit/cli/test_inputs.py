"""What a person types as input becomes JSON, or a sentence that says what is possible."""

import io
from datetime import timedelta

import pytest

from stoker_cli import inputs
from stoker_cli.inputs import parse_input
from stoker_cli.keys import parse_rates, parse_span
from stoker_cli.output import CommandFailed, ExitCode


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        (['{"a": 1, "b": [true]}'], {"a": 1, "b": [True]}),
        (["message=hello world"], {"message": "hello world"}),
        (["n=3", "x=1.5", "flag=true", "nothing=null"], {"n": 3, "x": 1.5, "flag": True, "nothing": None}),
        (["list=[1, 2]", 'text="3"'], {"list": [1, 2], "text": "3"}),
        (['{"a": 1}', "a=2"], {"a": 2}),
        (["equation=a=b"], {"equation": "a=b"}),
        (["empty="], {"empty": ""}),
        ([], {}),
    ],
)
def test_values_are_json_where_they_can_be_and_text_else(typed, values):
    assert parse_input(typed).values == values


def test_a_file_of_json_and_standard_input_are_read(tmp_path, monkeypatch):
    (tmp_path / "in.json").write_text('{"a": "ü"}')
    monkeypatch.setattr(inputs.sys, "stdin", io.StringIO('{"b": 2}'))
    assert parse_input([f"@{tmp_path}/in.json", "-"]).values == {"a": "ü", "b": 2}


def test_a_file_is_kept_for_upload(tmp_path):
    picture = tmp_path / "a b.png"
    picture.write_bytes(b"x")
    typed = parse_input([f"image=@{picture}", "scale=2"])
    assert typed.values == {"scale": 2}
    assert typed.files == {"image": picture}


@pytest.mark.parametrize("text", ["hello", "{", "[1]", "@/nowhere.json", "image=@/nowhere.png", "1a=2", "=x"])
def test_what_is_no_input_is_a_usage_error(text):
    with pytest.raises(CommandFailed) as caught:
        parse_input([text])
    assert caught.value.exit_code is ExitCode.USAGE


def test_an_array_on_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr(inputs.sys, "stdin", io.StringIO("[1]"))
    with pytest.raises(CommandFailed, match="must be a JSON object, found list"):
        parse_input(["-"])


def test_rates_are_limits_by_kind():
    assert parse_rates(["run=0", "get=500"]) == {"run": 0, "get": 500}


@pytest.mark.parametrize("text", ["run", "run=-1", "run=x", "walk=1"])
def test_a_wrong_rate_is_a_usage_error(text):
    with pytest.raises(CommandFailed, match="--rate"):
        parse_rates([text])


@pytest.mark.parametrize(
    ("typed", "span"),
    [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("8w", timedelta(weeks=8))],
)
def test_the_life_of_a_key_is_typed_with_its_unit(typed, span):
    assert parse_span(typed) == span


@pytest.mark.parametrize("typed", ["", "30", "d", "-1d", "0d", "1.5d", "30 days", "99999w"])
def test_a_span_that_is_none_is_refused_with_what_is_possible(typed):
    with pytest.raises(CommandFailed) as refused:
        parse_span(typed)
    assert (refused.value.exit_code, "30d" in refused.value.hint) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("typed", ["text=\udcff", '{"a": "\udcff"}', "file=@\udcff.png", "\udcff"])
def test_what_is_no_utf_8_is_a_usage_error_that_shows_it(typed):
    with pytest.raises(CommandFailed, match=r"\\udcff.* is no UTF-8 text") as refused:
        parse_input([typed])
    assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_standard_input_that_is_no_utf_8_is_a_usage_error(monkeypatch, errors):
    given = io.TextIOWrapper(io.BytesIO(b'{"a": "\xff"}'), encoding="utf-8", errors=errors)
    monkeypatch.setattr(inputs.sys, "stdin", given)
    with pytest.raises(CommandFailed, match="standard input is no UTF-8 text") as refused:
        parse_input(["-"])
    assert refused.value.exit_code is ExitCode.USAGE
