"""Files in and out through the real clients: the SDK uploads, the app reads, the client downloads."""

import pytest
from clients.plans import OCR
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
