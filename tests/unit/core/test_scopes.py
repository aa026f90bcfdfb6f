import pytest

from stoker.core.errors import InvalidRequest, MissingScope
from stoker.core.scopes import ALL, PRESETS, Scope, allows, check_grant, check_scopes, expanded, known


@pytest.mark.parametrize(
    ("held", "wanted", "may"),
    [
        ((), Scope.APIKEYS_WRITE, True),  # a key from before there were scopes
        (("*",), Scope.AUDIT_READ, True),
        (("apps:read",), Scope.APPS_READ, True),
        (("apps",), Scope.APPS_EXECUTE, True),
        (("apps:write",), Scope.APPS_READ, False),
        (("apps",), Scope.FILES_READ, False),
        (("apps:read", "files"), Scope.FILES_WRITE, True),
        (("something of another system",), Scope.APPS_READ, False),
        (("app",), Scope.APPS_READ, False),
    ],
)
def test_a_scope_covers_itself_its_family_and_nothing_else(held, wanted, may):
    assert allows(held, wanted) is may


def test_an_unknown_scope_is_refused_with_the_known_ones():
    with pytest.raises(InvalidRequest) as refused:
        check_scopes(["apps:read", "apps:fly"])
    assert "'apps:fly' is unknown" in refused.value.message
    assert all(name in refused.value.message for name in known())


def test_a_scope_that_is_named_twice_counts_once():
    assert check_scopes(["files", "apps:read", "files"]) == ("files", "apps:read")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_holds_scopes_that_exist(preset):
    assert check_scopes(PRESETS[preset]) == PRESETS[preset]


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ((), ()),
        ((), ("*",)),
        (("*",), ()),
        (("apps",), ("apps",)),
        (("apps",), ("apps:read", "apps:write")),
        (("apps:read", "apps:write", "apps:execute"), ("apps",)),
    ],
)
def test_a_key_gives_what_it_has(held, asked):
    check_grant(held, asked)


@pytest.mark.parametrize(
    ("held", "asked", "missing"),
    [
        (("apikeys",), (), [ALL]),
        (("apikeys",), ("*",), [ALL]),
        (("apikeys", "apps:read"), ("apps",), ["apps:write", "apps:execute"]),
        (("apikeys:write",), ("apikeys",), ["apikeys:read"]),
    ],
)
def test_a_key_does_not_give_what_it_lacks(held, asked, missing):
    with pytest.raises(MissingScope) as refused:
        check_grant(held, asked)
    assert refused.value.fields["missing_scopes"] == missing


def test_a_family_comes_to_its_rights():
    assert expanded(("files", "unknown")) == (Scope.FILES_READ, Scope.FILES_WRITE)
