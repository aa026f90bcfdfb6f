"""The key and the errors of the command line's connection."""

import httpx
import pytest

from stoker.settings import ClientSettings
from stoker_cli.api import Api, find_key
from stoker_cli.output import CommandFailed, ExitCode

KEY = "inf_k1.secret"


@pytest.mark.parametrize("given", [KEY, f"{KEY}\n", f" {KEY}\r\n"])
def test_a_key_is_taken_without_what_stands_around_it(tmp_path, given):
    assert find_key(ClientSettings(data_dir=tmp_path, api_key=given)) == KEY


@pytest.mark.parametrize("given", ["inf_k\u00e9y", "inf_\nkey"])
def test_what_can_be_no_key_is_refused_and_not_shown(tmp_path, given):
    with pytest.raises(CommandFailed) as refused:
        find_key(ClientSettings(data_dir=tmp_path, api_key=given))
    assert refused.value.exit_code == ExitCode.DENIED
    assert "inf_" not in refused.value.message


async def test_a_header_that_cannot_be_sent_is_not_shown():
    async with Api("http://127.0.0.1:9", KEY) as api:
        with pytest.raises(CommandFailed) as refused, api._explained():
            raise httpx.LocalProtocolError(f"Illegal header value b'Bearer {KEY}\\n'")
    assert KEY not in refused.value.message
