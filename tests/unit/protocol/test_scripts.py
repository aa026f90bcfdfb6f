"""The headers of the Lua scripts are the truth about them."""

import re
from pathlib import Path

import pytest

import stoker.protocol
from stoker.protocol.keys import Keys
from stoker.protocol.scripts import scripts

pytestmark = pytest.mark.unit

LUA = Path(stoker.protocol.__file__).parent / "lua"
VERBS = sorted(path.stem for path in LUA.glob("*.lua"))
_CODE = re.compile(r"'([A-Z]+_[A-Z_]+|MOVED)'")


@pytest.mark.parametrize("verb", VERBS)
class TestHeader:
    def test_names_the_verb_and_all_it_takes(self, verb):
        script = scripts()[verb]
        assert (LUA / f"{verb}.lua").read_text().startswith(f"-- {verb}: ")
        assert script.keys
        assert script.ok.startswith('{"OK"')

    def test_numbers_keys_and_arguments_as_the_body_uses_them(self, verb):
        script = scripts()[verb]
        body = (LUA / f"{verb}.lua").read_text()
        for name, promised in (("KEYS", script.keys), ("ARGV", script.args)):
            used = {int(n) for n in re.findall(rf"{name}\[(\d+)\]", body)}
            assert used == set(range(1, len(promised) + 1)), name

    def test_lists_every_error_that_it_can_return(self, verb):
        script = scripts()[verb]
        own = set(_CODE.findall((LUA / f"{verb}.lua").read_text()))
        assert own <= script.errors <= set(_CODE.findall(script.source))

    def test_is_short_and_takes_few_arguments(self, verb):
        assert len((LUA / f"{verb}.lua").read_text().splitlines()) <= 80
        assert len(scripts()[verb].args) <= 8


def test_all_keys_of_a_pool_lie_in_one_slot():
    keys = Keys("gpu")
    names = [value for value in vars(keys).values() if isinstance(value, str) and value.startswith("stoker:")]
    names += [keys.task("t"), keys.inbox("e"), keys.control("t"), keys.file("f"), keys.app_versions("a")]
    assert all(name.startswith("stoker:{gpu}") for name in names)


def test_what_only_the_control_plane_may_see_is_outside_the_tasks_own_keys():
    keys = Keys("p")
    assert not keys.control("t").startswith(keys.task("t"))
    assert keys.inbox("box").startswith(keys.engine("box") + ":")
