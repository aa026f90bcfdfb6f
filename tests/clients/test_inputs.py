"""Files of inputs from a client to the app's hands: uploaded, or in the web, or within the input itself."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from clients import raw
from clients.plans import task
from helpers import TEST_APPS

pytestmark = pytest.mark.timeout(240)  # each version's environment is built once

APP = "test/reader"
BODY = os.urandom(100_000)


@pytest.fixture(scope="module", params=["0.36.0", "0.6.0"])
def http(request, system, tmp_path_factory):
    """A client of a system with an app that reads files, on an SDK of today and one with the older schema."""
    folder = tmp_path_factory.mktemp("app") / "reader"
    shutil.copytree(TEST_APPS / "reader", folder)
    (folder / "requirements.txt").write_text(f"inferencesh=={request.param}\n")
    system.deploy(folder)
    with raw.client(system, raw.SDK_NAMED) as made:
        yield made


def end(http, system, **given):
    answer = http.post("/apps/run", json=task(APP, **given))
    assert answer.is_success, answer.text
    return raw.wait_end(system, raw.data_of(answer)["id"])


def test_an_uploaded_file_is_on_the_machine_under_its_name(http, system):
    uri = raw.upload(http, "my photo (1).png", "image/png", BODY)["uri"]
    ended = end(http, system, image=uri, more=[uri, {"uri": uri}], named={"a/b": uri})
    assert ended["status"] == 10, ended["error"]
    output = ended["output"]
    seen = [output["image"], *output["more"], output["named"]["a/b"]]
    assert {Path(file.pop("path")).name for file in seen} == {"my_photo__1_.png"}
    assert seen == 4 * [
        {
            "uri": uri,
            "filename": "my photo (1).png",
            "content_type": "image/png",
            "size": len(BODY),
            "sha256": hashlib.sha256(BODY).hexdigest(),
        }
    ]
    assert output["cached"] == []  # the SDK fetched nothing by itself


def test_a_file_is_gone_from_the_machine_after_its_run(http, system):
    uri = raw.upload(http, "a.bin", "application/octet-stream", b"x")["uri"]
    paths = [Path(end(http, system, image=uri)["output"]["image"]["path"]) for _ in range(2)]
    assert not any(path.exists() for path in paths)
    assert paths[0] != paths[1]
    assert not any(char in str(path) for path in paths for char in " ()&;")


def test_a_file_within_the_input_needs_no_upload(http, system):
    uri = "data:text/plain;base64,SGVsbG8"
    output = end(http, system, image=uri, maybe=None)["output"]
    assert output["image"]["sha256"] == hashlib.sha256(b"Hello").hexdigest()
    assert output["image"]["filename"] == "file.txt"


def test_a_path_of_the_machine_is_no_file_of_a_caller(http, system):
    for given in ("/etc/passwd", "file:///etc/passwd", {"path": "/etc/passwd"}):
        ended = end(http, system, image=given)
        assert ended["status"] == 11
        assert ended["error"].startswith("input.image: ")
    uri = raw.upload(http, "a.bin", "application/octet-stream", b"x")["uri"]
    output = end(http, system, image={"uri": uri, "path": "/etc/passwd"})["output"]
    assert output["image"]["sha256"] == hashlib.sha256(b"x").hexdigest()


def test_the_inside_of_the_network_is_out_of_reach(http, system):
    for uri in (
        "http://169.254.169.254/latest/meta-data/",
        f"{system.base_url}/tasks",
        "http://localhost:1/",
    ):
        ended = end(http, system, image=uri)
        assert ended["status"] == 11
        assert "leads to an address that is not public" in ended["error"]


def test_a_file_of_somebody_elses_address_is_not_found(http, system):
    uri = raw.upload(http, "a.bin", "application/octet-stream", b"x")["uri"]
    assert end(http, system, image=uri)["status"] == 10  # it is kept on the machine now
    base, kind, name = uri.rsplit("/", 2)
    ended = end(http, system, image=f"{base}/{kind[:-1]}{'a' if kind[-1] != 'a' else 'b'}/{name}")
    assert ended["status"] == 11
    assert "404" in ended["error"]
