"""Encryption at rest: what opens what, and how keys come and go."""

import base64
import os
import stat
import threading

import pytest
from helpers import PATIENCE_S

from stoker.core.errors import SecretUnreadable
from stoker.settings import InvalidSettings
from stoker.vault import Vault, key_id_of, parse_keys


def text_of(*keys):
    return ",".join(base64.b64encode(key).decode() for key in keys)


ONE, TWO = b"1" * 32, b"2" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secrets-key"


def test_what_is_sealed_opens_and_shows_nothing(path):
    vault = Vault(text_of(ONE), path)
    sealed, key_id = vault.seal("ann", "A", "the value é")
    assert vault.open("ann", "A", sealed, key_id) == "the value é"
    assert b"the value" not in base64.b64decode(sealed)
    assert sealed != vault.seal("ann", "A", "the value é")[0]


@pytest.mark.parametrize(("owner", "name"), [("bob", "A"), ("ann", "B"), ("an", "nA")])
def test_a_value_is_bound_to_its_owner_and_name(path, owner, name):
    vault = Vault(text_of(ONE), path)
    sealed, key_id = vault.seal("ann", "A", "value")
    with pytest.raises(SecretUnreadable, match="damaged"):
        vault.open(owner, name, sealed, key_id)


@pytest.mark.parametrize(
    "change", [lambda s: "AAAA" + s[4:], lambda s: s[:-8] + "AAAAAAA=", lambda s: "#", lambda s: ""]
)
def test_a_changed_value_does_not_open(path, change):
    vault = Vault(text_of(ONE), path)
    sealed, key_id = vault.seal("ann", "A", "value")
    with pytest.raises(SecretUnreadable):
        vault.open("ann", "A", change(sealed), key_id)


def test_a_missing_key_is_named(path):
    sealed, key_id = Vault(text_of(ONE), path).seal("ann", "A", "value")
    with pytest.raises(SecretUnreadable, match=f"{key_id}.*it has: {key_id_of(TWO)}"):
        Vault(text_of(TWO), path).open("ann", "A", sealed, key_id)


def test_the_first_key_seals_and_all_of_them_open(path):
    sealed, key_id = Vault(text_of(ONE), path).seal("ann", "A", "value")
    both = Vault(text_of(TWO, ONE), path)
    assert both.open("ann", "A", sealed, key_id) == "value"
    assert both.seal("ann", "A", "value")[1] == key_id_of(TWO)


def test_the_file_is_made_at_the_first_seal_for_its_owner_alone(path):
    vault = Vault("", path)
    assert vault.keys() == {}
    assert not path.exists()
    sealed, key_id = vault.seal("ann", "A", "value")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Vault("", path).open("ann", "A", sealed, key_id) == "value"
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets-key"]


def test_processes_that_make_the_file_at_the_same_time_get_one_key(path):
    vaults = [Vault("", path) for _ in range(8)]
    gate, used = threading.Barrier(len(vaults)), []

    def seal(vault):
        gate.wait(PATIENCE_S)
        used.append(vault.seal("ann", "A", "value")[1])

    threads = [threading.Thread(target=seal, args=(vault,), daemon=True) for vault in vaults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(used) == len(vaults)
    assert len(set(used)) == 1


def test_another_process_sees_a_new_key_and_still_opens_what_the_old_one_sealed(path):
    here, there = Vault("", path), Vault("", path)
    sealed, old = here.seal("ann", "A", "value")
    assert there.open("ann", "A", sealed, old) == "value"
    new = here.add_key()
    assert there.seal("ann", "A", "value")[1] == new != old
    assert there.open("ann", "A", sealed, old) == "value"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    here.add_key()
    assert list(there.keys())[1:] == [new, old]
    here.drop_old_keys()
    assert len(there.keys()) == 1
    assert new not in there.keys()  # noqa: SIM118 - a vault is no mapping


def test_a_key_ring_of_a_setting_is_not_changed(path):
    with pytest.raises(InvalidSettings, match="STOKER_SECRETS_KEY"):
        Vault(text_of(ONE), path).add_key()


@pytest.mark.parametrize("text", ["hidden", "", " , ", base64.b64encode(b"hidden" * 5).decode(), "=" * 44])
def test_what_is_no_key_is_refused_without_being_shown(text):
    with pytest.raises(InvalidSettings, match="openssl rand") as refusal:
        parse_keys(text, "the source")
    assert not text.strip(" ,") or text not in refusal.value.message


def test_keys_are_read_in_both_alphabets_and_on_several_lines():
    key = b"\xfb" * 32
    text = f"{base64.b64encode(key).decode()}\n{base64.urlsafe_b64encode(ONE).decode()}\n"
    assert list(parse_keys(text, "x").values()) == [key, ONE]
    assert list(parse_keys(base64.urlsafe_b64encode(key).decode(), "x").values()) == [key]


def test_a_key_id_tells_nothing_of_the_key():
    key = os.urandom(32)
    assert key_id_of(key) not in key.hex()


def test_an_unreadable_file_is_told(tmp_path):
    with pytest.raises(InvalidSettings, match="cannot read the key file"):
        Vault("", tmp_path).keys()
