"""API keys that are made."""

from datetime import datetime

from stoker_gateway.routes.keys import NewKey, key_dto, make_key


def test_a_key_may_end_at_the_end_of_all_times():
    """West of Greenwich the last second of a calendar is one of the year after it."""
    _, key = make_key("ann", NewKey(expires_at=datetime.fromisoformat("9999-12-31T23:59:59-01:00")))
    assert key_dto(key)["expires_at"] == "9999-12-31T23:59:59.999Z"
