import pytest

from stoker.core.errors import InvalidRequest
from stoker.core.messages import Owner
from stoker_gateway.flows import Flows, slug

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("namespace", ["a/b", "../", "é", "a b", "a@1"])
async def test_a_flow_has_no_namespace_that_an_app_could_not_have(namespace):
    """Its app could be deployed and never be named."""
    flows = Flows(None, None, "")  # nothing is stored
    with pytest.raises(InvalidRequest, match="namespace/name"):
        await flows.create("words", namespace, Owner(user_id="u", key_id="k"))


@pytest.mark.parametrize(
    ("name", "expected"), [("Read a sign", "read-a-sign"), ("../x", "x"), ("é", "flow"), ("", "flow")]
)
def test_any_name_of_a_flow_makes_one_that_an_app_can_have(name, expected):
    assert slug(name) == expected
