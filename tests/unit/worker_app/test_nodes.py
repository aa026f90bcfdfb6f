"""Which Node an app gets, and what of its folder npm reads."""

import json
from pathlib import Path

import pytest

from stoker_worker.nodes import (
    BadPackageJson,
    Node,
    NodeMissing,
    choose,
    copy_sources,
    is_node,
    local_folders,
    major_of,
)


def nodes(*versions):
    return [Node(path=Path(f"/n{v}/bin/node"), version=tuple(int(p) for p in v.split("."))) for v in versions]


@pytest.mark.parametrize(
    ("kernel", "major"), [("node-22", 22), ("node22", 22), ("nodejs-20.1", 20), ("node", 20)]
)
def test_kernels_name_a_major_version(kernel, major):
    assert is_node(kernel)
    assert major_of(kernel) == major


@pytest.mark.parametrize("kernel", ["", "python-3.11", "3.11", "nodejs_22", "deno"])
def test_other_kernels_are_no_node(kernel):
    assert not is_node(kernel)


@pytest.mark.parametrize(
    ("found", "older", "chosen"),
    [
        (["24.1.0", "22.3.0", "22.1.0", "20.9.0"], False, "22.3.0"),
        (["26.0.0", "24.1.0", "20.9.0"], False, "24.1.0"),
        (["20.9.0", "21.0.0", "18.20.0"], True, "21.0.0"),
    ],
)
def test_the_same_major_comes_before_newer_ones_and_older_ones_need_leave(found, older, chosen):
    assert choose(22, nodes(*found), older=older).text == chosen


@pytest.mark.parametrize(
    ("found", "older", "words"),
    [
        (["20.9.0"], False, r"wants Node 22.*found: 20\.9\.0.*node_fallback"),
        (["18.20.0", "20.5.0"], True, r"found: 18\.20\.0, 20\.5\.0; 20\.6 or newer"),
        ([], True, "found: none"),
    ],
)
def test_without_a_node_that_can_be_used_the_message_says_which_there_are(found, older, words):
    with pytest.raises(NodeMissing, match=words):
        choose(22, nodes(*found), older=older)


def test_folders_of_the_app_that_are_packages_are_found(tmp_path):
    app = tmp_path / "app"
    (app / "own").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (app / "package.json").write_text(
        '{"dependencies": {"own": "file:./own", "out": "file:../outside", "gone": "file:./gone", "zod": "^4"}}'
    )
    assert local_folders(app) == [Path("own")]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_package_file_that_is_none_is_told(tmp_path, text):
    (tmp_path / "package.json").write_text(text)
    with pytest.raises(BadPackageJson, match=r"package\.json"):
        local_folders(tmp_path)


def test_a_local_folder_may_be_named_twice_and_lie_in_another(tmp_path):
    app, target = tmp_path / "app", tmp_path / "environment"
    (app / "lib" / "deep" / "node_modules").mkdir(parents=True)
    (app / "lib" / "deep" / "index.js").write_text("1")
    named = {
        "a": "file:./lib",
        "b": "file:lib/",
        "c": "file:lib/../lib",
        "d": "file:lib/deep",
        "e": "link:lib/deep",
    }
    (app / "package.json").write_text(json.dumps({"dependencies": named}))
    target.mkdir()
    copy_sources(app, target)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert found == ["lib", "lib/deep", "lib/deep/index.js", "package.json"]
    assert local_folders(app) == [Path("lib"), Path("lib/deep")]


@pytest.mark.parametrize("named", ["file:.", "file:./", "link:", ".", "file:lib/.."])
def test_an_app_that_names_itself_as_a_package_is_refused(tmp_path, named):
    (tmp_path / "lib").mkdir()
    (tmp_path / "package.json").write_text(json.dumps({"dependencies": {"self": named}}))
    with pytest.raises(BadPackageJson, match="own folder"):
        local_folders(tmp_path)
