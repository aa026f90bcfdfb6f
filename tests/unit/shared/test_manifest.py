"""inf.yml, as apps write it."""

import re
from pathlib import Path

import pytest

from stoker import manifest
from stoker.core.limits import Retry, Timeouts
from stoker.core.messages import GpuType, IntegrationNeed, Needs, SecretNeed
from stoker.manifest import BadManifest, parse, size_of

APPS = Path(__file__).parents[2] / "apps"


def needs_of(**resources):
    return parse({"name": "x", "resources": resources}).needs


def test_a_whole_file_is_read():
    app = manifest.load(APPS / "models")
    assert (app.name, app.namespace, app.kernel) == ("models", "tests", "3.11")
    assert app.env == {"PYTHONPATH": "/app", "GREETING": "hello", "FLAG": "true", "NUMBER": "3"}
    assert app.secrets == (
        SecretNeed(key="A_TOKEN", description="needed"),
        SecretNeed(key="ANOTHER", optional=True),
    )
    assert app.needs == Needs(ram_bytes=4_000_000_000)
    assert app.resources == {"gpu": {"count": 0, "vram": 0, "type": "none"}, "ram": 4_000_000_000}
    assert app.default_function == "run"


def test_almost_everything_may_be_missing_or_null():
    app = parse(
        {"name": "x", "env": None, "resources": None, "secrets": None, "metadata": None, "images": None}
    )
    assert app == parse({"name": "x"})
    assert (app.category, app.needs) == ("other", Needs())


def test_secrets_and_integrations_are_read_in_every_form():
    app = parse(
        {
            "name": "x",
            "secrets": [
                {"key": "A", "description": "a", "optional": False},
                "B",
                {"description": "no key"},
                None,
            ],
            "requirements": {"secrets": [{"key": "C", "optional": True}, {"key": "A", "optional": True}]},
            "integrations": [{"key": "gcp.vertex_ai", "description": "cloud"}, "x.tweet.read"],
            "credentials": {"crm": {"optional": True, "secrets": [{"key": "CRM_TOKEN"}]}, "mail": None},
        }
    )
    assert app.secrets == (
        SecretNeed(key="A", description="a"),
        SecretNeed(key="B"),
        SecretNeed(key="C", optional=True),
    )
    assert app.integrations == (
        IntegrationNeed(key="gcp.vertex_ai", description="cloud"),
        IntegrationNeed(key="x.tweet.read"),
        IntegrationNeed(key="crm", optional=True, secrets=("CRM_TOKEN",)),
        IntegrationNeed(key="mail"),
    )


def test_integrations_may_stand_among_the_requirements():
    app = parse(
        {"name": "x", "requirements": {"integrations": [{"key": "google.docs"}]}, "credentials": ["x"]}
    )
    assert app.integrations == (IntegrationNeed(key="google.docs"), IntegrationNeed(key="x"))


@pytest.mark.parametrize(
    ("number", "size"),
    [
        (0, 0),
        (4, 4_000_000_000),
        (16, 16_000_000_000),
        (512, 512_000_000),
        (2048, 2_048_000_000),
        (8_589_934_592, 8_589_934_592),
    ],
)
def test_small_numbers_are_gigabytes_or_megabytes(number, size):
    assert size_of(number) == size


def test_the_count_of_gpus_decides():
    assert needs_of(gpu={"count": 0, "vram": 5, "type": "any"}) == Needs()
    assert needs_of(gpu={"count": 1, "vram": 12_000_000_000, "type": ""}) == Needs(
        gpu_count=1, gpu_type=GpuType.ANY, vram_bytes=12_000_000_000
    )
    assert needs_of(gpu={"count": "1", "type": "nvidia"}).gpu_type is GpuType.NVIDIA


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "has no name"),
        ({"name": ""}, "has no name"),
        (
            {"name": "x", "resources": {"ram": "lots"}},
            "resources.ram must be a number of bytes or a size like 16GB, found 'lots'",
        ),
        ({"name": "x", "resources": {"gpu": {"count": -1}}}, "must not be negative"),
    ],
)
def test_what_is_wrong_is_named(document, words):
    with pytest.raises(BadManifest, match=words):
        parse(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "is no app"), ("- a\n", "must hold a mapping"), ("a: [", "not valid YAML"), ("", "mapping")],
)
def test_a_file_that_is_none_is_named(tmp_path, text, words):
    if text is not None:
        (tmp_path / "inf.yml").write_text(text)
    with pytest.raises(BadManifest, match=words):
        manifest.load(tmp_path)


def test_yaml_cannot_run_code(tmp_path):
    (tmp_path / "inf.yml").write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(BadManifest, match="not valid YAML"):
        manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("16GB", 16_000_000_000),
        ("512 MiB", 536_870_912),
        ("24Gi", 25_769_803_776),
        ("1.5g", 1_500_000_000),
        ("4", 4_000_000_000),
        (2.5, 2_000_000_000),
    ],
)
def test_sizes_may_have_a_unit(written, size):
    assert needs_of(ram=written).ram_bytes == size


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("kernel: python-3.12", "python-3.12"),
        ("kernel: '3.10'", "3.10"),
        ("kernel: 3.10", "3.10"),
        ("kernel: 3.11", "3.11"),
        ("kernel: ''", ""),
        ("kernel:", ""),
        ("python: 3.10", "python-3.10"),
        ("python: '3.12'", "python-3.12"),
        ("kernel: ''\npython: '3.12'", "python-3.12"),
    ],
)
def test_kernels_have_several_spellings(text, kernel):
    """YAML takes 3.10 for a number, and 3.1 is what is left of it."""
    assert manifest.parse_text(f"name: x\n{text}".encode()).kernel == kernel


def test_the_default_variant_of_older_files_counts_where_the_file_says_nothing():
    gpu = {"gpu": {"count": 1, "vram": 8, "type": "any"}}
    variants = {"default": {"resources": gpu, "env": {"A": "1"}}, "large": {"env": {"A": "2"}}}
    app = parse({"name": "x", "variants": variants})
    assert (app.needs.vram_bytes, app.env) == (8_000_000_000, {"A": "1"})
    assert parse({"name": "x", "variants": variants, "env": {"B": "1"}}).env == {"B": "1"}


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nmetadata: " + "[" * 40 + "]" * 40,
        "name: x\nmetadata:\n  a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
        + "".join(
            f"  {new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
            for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        "name: x\nmetadata: &m {again: *m}",
    ],
)
def test_a_file_that_grows_in_memory_is_refused(text):
    with pytest.raises(BadManifest, match="more than 20000 values"):
        manifest.parse_text(text.encode())


def test_a_huge_file_is_refused(tmp_path):
    (tmp_path / "inf.yml").write_text("name: x\n" + "#" * manifest.MAX_BYTES)
    with pytest.raises(BadManifest, match="larger than"):
        manifest.load(tmp_path)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(BadManifest, match="cannot be read"):
        manifest.parse_text(b"name: \xff")


def test_time_limits_and_retry_rules_are_read():
    app = parse({"name": "x", "timeouts": {"run": 60, "setup": 1.5}, "retry": {"max_attempts": 5}})
    assert (app.timeouts, app.retry) == (Timeouts(run=60, setup=1.5), Retry(max_attempts=5))
    assert app.keep_alive_s is None
    assert [parse({"name": "x", "keep_alive": seconds}).keep_alive_s for seconds in (0, 2.5)] == [0.0, 2.5]
    assert parse({"name": "x", "timeouts": None}).timeouts == Timeouts()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"timeouts": {"walk": 5}},
            "timeouts: walk unknown; it may have queue, no_match, setup, run, upload",
        ),
        ({"timeouts": {"run": "5 min"}}, "timeouts.run: '5 min' is no number of seconds"),
        ({"keep_alive": -1}, "keep_alive: -1 is no number of seconds from 0"),
        ({"keep_alive": True}, "keep_alive: True is no number of seconds from 0"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts: 0 is no whole number from 1 on"),
    ],
)
def test_a_limit_that_is_none_is_named(document, words):
    with pytest.raises(BadManifest, match=re.escape(words)):
        parse({"name": "x"} | document)
