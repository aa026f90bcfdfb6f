"""API keys that are made: by somebody, and the first one of a system."""

import asyncio
import hashlib
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from stoker.api_keys import recover_key
from stoker.core.audit import Action
from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.settings import GatewaySettings
from stoker_gateway import main
from stoker_gateway.main import ensure_first_key
from stoker_gateway.routes.keys import NewKey, key_dto, make_key


@pytest.fixture
def settings(tmp_path):
    return GatewaySettings(data_dir=tmp_path)


@pytest.fixture
def key_file(settings):
    return settings.key_file


async def named_by(store, key_file):
    """The key whose text a file has."""
    return await store.keys.by_hash(hashlib.sha256(key_file.read_text().strip().encode()).hexdigest())


def test_a_key_may_end_at_the_end_of_all_times():
    """West of Greenwich the last second of a calendar is one of the year after it."""
    _, key = make_key("ann", NewKey(expires_at=datetime.fromisoformat("9999-12-31T23:59:59-01:00")))
    assert key_dto(key)["expires_at"] == "9999-12-31T23:59:59.999Z"


async def test_the_first_key_is_in_a_file_that_its_owner_alone_reads(fake_store, settings, key_file):
    key_file.write_text("inf_of_a_store_that_is_gone\n")
    key_file.chmod(0o644)
    await ensure_first_key(fake_store, settings)
    made = await named_by(fake_store, key_file)
    assert (made.name, made.user_id, made.scopes, made.expires_ms) == ("first key", "admin", (), 0)
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["api-key"]


@pytest.mark.parametrize("scopes", [[], ["apps:read"]])
async def test_a_system_that_has_keys_gets_no_other_one_where_the_file_is_missing(
    fake_store, settings, key_file, monkeypatch, scopes
):
    monkeypatch.setattr(main, "log", main.get_logger("gateway"))  # one that was used before keeps its outlet
    _, key = make_key("admin", NewKey(scopes=scopes))
    await fake_store.keys.put(key)
    with capture_logs() as logs:
        await ensure_first_key(fake_store, settings)
    assert [one.id for one in await fake_store.keys.list()] == [key.id]
    assert not key_file.exists()
    [line] = [line for line in logs if line["event"] == Event.KEY_FILE_ABSENT]
    assert (line["path"], "stoker keys recover" in line["reason"]) == (str(key_file), True)


async def test_of_gateways_that_start_at_once_one_makes_the_key(fake_store, tmp_path):
    folders = [tmp_path / str(n) for n in range(4)]
    for folder in folders:
        folder.mkdir()
    await asyncio.gather(*(ensure_first_key(fake_store, GatewaySettings(data_dir=one)) for one in folders))
    [written] = tmp_path.glob("*/api-key")
    assert [await named_by(fake_store, written)] == await fake_store.keys.list()


async def test_a_file_never_names_a_key_that_was_not_stored(fake_store, settings, key_file, monkeypatch):
    async def fail(*_):
        raise StoreUnavailable

    monkeypatch.setattr(fake_store.keys, "put_first", fail)
    with pytest.raises(StoreUnavailable):
        await ensure_first_key(fake_store, settings)
    assert not key_file.exists()


async def test_a_key_that_cannot_be_written_is_taken_back(fake_store, settings, key_file):
    with pytest.raises(FileNotFoundError):
        await ensure_first_key(fake_store, GatewaySettings(data_dir=settings.data_dir / "missing"))
    assert await fake_store.keys.list() == []
    await ensure_first_key(fake_store, settings)
    assert await named_by(fake_store, key_file)


async def test_who_has_lost_all_keys_gets_another_one(fake_store, settings, key_file):
    await ensure_first_key(fake_store, settings)
    first = await named_by(fake_store, key_file)
    recovered = await recover_key(fake_store, key_file, now_ms=1)
    assert await named_by(fake_store, key_file) == recovered
    assert {key.id for key in await fake_store.keys.list()} == {first.id, recovered.id}
    recorded, _ = await fake_store.audit.page("", 10)
    assert [one.change.action for one in recorded] == [Action.KEY_CREATED] * 2
