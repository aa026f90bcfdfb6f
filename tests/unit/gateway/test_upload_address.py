import pytest

from stoker.core.errors import Forbidden
from stoker.core.messages import StoredFile
from stoker_gateway.uploads import check_address, signature

FACTS = {
    "id": "f", "secret": "s", "owner_id": "u", "filename": "a", "content_type": "text/plain", "size": 4,
    "created_ms": 0, "upload_key": "key", "announced": "4 text/plain",
}  # fmt: skip
FILE = StoredFile(**FACTS)


def test_an_address_says_until_when_it_is_good():
    assert check_address(FILE, "100", signature(FILE, 100)) == 100
    with pytest.raises(Forbidden, match="not one of ours"):
        check_address(FILE, "101", signature(FILE, 100))


@pytest.mark.parametrize(
    "changed",
    [{"id": "g"}, {"announced": "5 text/plain"}, {"announced": "4 image/png"}, {"upload_key": "other"}],
)
def test_an_address_is_good_for_one_file_of_one_size_and_type(changed):
    with pytest.raises(Forbidden, match="not one of ours"):
        check_address(StoredFile(**FACTS | changed), "100", signature(FILE, 100))


def test_a_record_without_a_key_takes_nothing():
    file = StoredFile(**FACTS | {"upload_key": ""})
    with pytest.raises(Forbidden):
        check_address(file, "100", signature(file, 100))
