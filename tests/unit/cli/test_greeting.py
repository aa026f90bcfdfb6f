"""What `stoker up` says once its parts run: with this system's own key, and whatever fails, the system stays."""

from types import SimpleNamespace

import pytest

from stoker.settings import UpSettings, load
from stoker_cli.output import CommandFailed, ExitCode
from stoker_cli.up import greeting
from stoker_cli.up.greeting import Greeting

pytestmark = pytest.mark.unit

URL = "http://127.0.0.1:1"


class Gateway:
    """Stands for the connection: is ready, and answers those who have `accepted`."""

    accepted = "inf_own"
    keys: tuple[str, ...] = ()

    def __init__(self, _url, key, _verify):
        self.key = key
        Gateway.keys += (key,)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        return None

    async def get(self, path):
        if path != "/ready" and self.key != self.accepted:
            raise CommandFailed("the API key is unknown", ExitCode.DENIED)
        return []


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(greeting, "Api", Gateway)
    monkeypatch.setattr(Gateway, "keys", ())
    monkeypatch.setenv("STOKER_API_KEY", "inf_of_another_gateway")

    def make(examples=None, **options):
        settings = load(UpSettings, {"data_dir": tmp_path, "examples": examples})
        return Greeting(settings, SimpleNamespace(url=URL, pids={}), [], **options), settings

    return make


async def test_the_greeting_asks_with_the_key_of_its_own_data_directory(make, capsys):
    greet, settings = make(json=True)
    settings.key_file.write_text("inf_own\n")
    await greet.run()
    assert Gateway.keys == ("", "inf_own")
    assert '"event":"ready"' in capsys.readouterr().out


@pytest.mark.parametrize("own", [None, "inf_unknown"])
async def test_an_introduction_that_fails_is_told_and_does_not_end_the_system(make, capsys, own):
    greet, settings = make(json=True)
    if own:
        settings.key_file.write_text(own)
    await greet.run()
    assert '"event":"failed","what":"introduction"' in capsys.readouterr().out


@pytest.mark.parametrize(("made", "why"), [(False, "it is no folder"), (True, "there is no inf.yml")])
async def test_a_place_without_examples_is_told(make, capsys, tmp_path, made, why):
    examples = tmp_path / "examples"
    if made:
        examples.mkdir()
    greet, settings = make(examples, json=True)
    settings.key_file.write_text("inf_own\n")
    await greet.run()
    assert f"'{examples}' holds no app: {why}" in capsys.readouterr().out
