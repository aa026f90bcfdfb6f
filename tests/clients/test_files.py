"""Files in and out through the real clients: the SDK uploads, the app reads, the client downloads."""

import httpx
import pytest
from clients import raw
from clients.plans import OCR, task
from clients.sdks import OLD_NUMBERS, Sdk
from helpers import EXAMPLES

pytestmark = pytest.mark.timeout(240)  # the first one builds the environment of the OCR app

PNG = "89504e470d0a1a0a"


@pytest.mark.parametrize(
    ("sdk", "from_path"),
    [
        (Sdk("python", "0.36.0"), True),
        (Sdk("python", "0.36.0", "async"), False),
        (Sdk("python", "0.6.0", numbers=OLD_NUMBERS), True),
        (Sdk("python", "0.6.0", "async", OLD_NUMBERS), False),
        (Sdk("js", "0.6.54"), False),
    ],
    ids=str,
)
def test_a_picture_goes_in_and_text_and_a_picture_come_out(sdk, from_path, system_with_ocr):
    steps = [
        {
            "name": "ocr",
            "do": "run_on_file",
            "params": {"app": OCR, "infra": "private", "input": {}},
            "field": "image",
            "path": str(EXAMPLES / "ocr" / "sample.png"),
            "from_path": from_path,
            "output_field": "annotated",
        }
    ]
    facts = sdk.drive(steps, system_with_ocr.base_url, system_with_ocr.bench_key)["ocr"]
    assert "error" not in facts, facts
    output = facts["result"]["output"]
    assert "3 sacks of anthracite" in output["text"]
    assert all(0 < line["confidence"] <= 1 and len(line["box"]) == 4 for line in output["lines"])
    assert facts["head"] == PNG


@pytest.mark.long
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_files_of_a_task_are_listed_and_deleted(mode, system_with_ocr):
    sdk = Sdk("python", "0.36.0", mode)
    step = {
        "name": "ocr",
        "do": "files_of_a_task",
        "params": {"app": OCR, "infra": "private", "input": {}},
        "field": "image",
        "path": str(EXAMPLES / "ocr" / "sample.png"),
        "from_path": mode == "sync",
        "output_field": "annotated",
    }
    facts = sdk.drive([step], system_with_ocr.base_url, system_with_ocr.bench_key)["ocr"]
    assert "error" not in facts, facts
    roles = {file["id"]: file["role"] for file in facts["files"]}
    assert sorted(roles.values()) == ["input", "output"]
    [made] = facts["made"]
    assert facts["deleted"] == {"deleted": [made["id"]], "skipped": []}
    assert [file["role"] for file in facts["left"]] == ["input"]
    assert facts["gone"] == [404, 404]


@pytest.fixture(scope="module")
def http(system_with_ocr):
    with raw.client(system_with_ocr, raw.SDK_NAMED) as made:
        yield made


def test_an_uploaded_file_is_read_without_a_key_and_only_under_its_own_address(http, system_with_ocr):
    record = raw.upload(http, "a note.txt", "text/plain", b"coal")
    answer = httpx.get(record["uri"], trust_env=False)
    assert answer.content == b"coal"
    assert answer.headers["content-type"].startswith("text/plain")
    guessed = httpx.get(f"{system_with_ocr.base_url}/files/{record['id']}", trust_env=False)
    assert guessed.status_code in {401, 404}


def test_a_file_that_is_no_picture_fails_with_the_words_of_the_app(http, system_with_ocr):
    record = raw.upload(http, "note.txt", "text/plain", b"not a picture")
    made = raw.run(http, task(OCR, image=record["uri"]))
    ended = raw.wait_end(system_with_ocr, made["id"])
    assert ended["status"] == 11
    assert "'note.txt' is not a picture that can be read" in ended["error"]


def test_a_file_that_was_never_uploaded_fails_with_its_address(http, system_with_ocr):
    missing = f"{system_with_ocr.base_url}/files/none/none/none.png"
    made = raw.run(http, task(OCR, image=missing))
    ended = raw.wait_end(system_with_ocr, made["id"])
    assert ended["status"] == 11
    assert "404" in ended["error"]


def test_an_output_file_has_its_name_type_and_size(http, system_with_ocr):
    data = (EXAMPLES / "ocr" / "sample.png").read_bytes()
    record = raw.upload(http, "receipt.png", "image/png", data)
    made = raw.run(http, task(OCR, image=record["uri"]))
    ended = raw.wait_end(system_with_ocr, made["id"])
    annotated = ended["output"]["annotated"]
    assert annotated["filename"] == "receipt-annotated.png"
    assert annotated["content_type"] == "image/png"
    assert len(httpx.get(annotated["uri"], trust_env=False).content) == annotated["size"]
    assert annotated["uri"].endswith("/receipt-annotated.png")


def test_a_wrong_setup_is_refused_before_anything_is_loaded(http):
    body = {**task(OCR, image="http://127.0.0.1:1/x.png"), "setup": {"min_confidence": 7}}
    answer = http.post("/apps/run", json=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Input validation failed: setup.min_confidence: 7")
