"""What may be a key is hidden, and comes back where a shown config is stored."""

import pytest

from stoker.agents.masking import MASK, masked, unmasked
from stoker.core.errors import InvalidRequest

CALL = {
    "name": "look",
    "type": "http",
    "http": {
        "url": "https://a.example/x",
        "headers": {"Accept": "text/plain", "X-Key": "${{secrets.KEY}}"},
        "auth": {"type": "api_key", "header": "X-Api", "secret": "s3cret"},
        "input_schema": {"type": "object", "properties": {"secret": {"type": "string"}, "headers": {}}},
    },
}
HOOK = {"name": "tell", "type": "hook", "hook": {"url": "https://b.example", "secret": "signs"}}
CONFIG = {"system_prompt": "Be kind.", "tools": [CALL, HOOK, {"name": "mine", "type": "client"}]}


def test_values_are_hidden_and_nothing_else():
    shown = masked(CONFIG)
    call, hook, mine = shown["tools"]
    assert call["http"]["headers"] == {"Accept": MASK, "X-Key": "${{secrets.KEY}}"}
    assert call["http"]["auth"] == {"type": "api_key", "header": "X-Api", "secret": MASK}
    assert call["http"]["input_schema"] == CALL["http"]["input_schema"]
    assert hook["hook"] == {"url": "https://b.example", "secret": MASK}
    assert mine == {"name": "mine", "type": "client"}
    assert shown["system_prompt"] == "Be kind."
    assert CALL["http"]["auth"]["secret"] == "s3cret"


def test_what_was_shown_comes_back_whole():
    assert unmasked(masked(CONFIG), [CONFIG]) == CONFIG
    changed = {"tools": [{**CALL, "http": {**CALL["http"], "auth": {"type": "bearer", "secret": "new"}}}]}
    assert unmasked(masked(CONFIG), [changed, CONFIG]) == CONFIG
    assert unmasked(masked(changed), [CONFIG, changed]) == changed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "https://elsewhere.example"}, "look.http.headers.Accept"),
        ({"headers": {"Other": MASK}}, "look.http.headers.Other"),
    ],
    ids=["to another address", "of another header"],
)
def test_a_value_goes_nowhere_else(change, field):
    shown = masked(CONFIG)
    shown["tools"][0]["http"] |= change
    with pytest.raises(InvalidRequest, match=field):
        unmasked(shown, [CONFIG])


def test_of_a_config_that_was_not_read_from_here_nothing_is_known():
    with pytest.raises(InvalidRequest, match="stands for a value that is not shown"):
        unmasked(masked(CONFIG))
    assert unmasked({"tools": "none"}) == {"tools": "none"}
