"""Reading a flow from a file."""

import pytest

from stoker_cli import flows
from stoker_cli.flows import read_flow
from stoker_cli.output import CommandFailed, ExitCode
from stoker_cli.task_view import OUTPUT_SHOWN


def test_a_file_is_read(tmp_path):
    file = tmp_path / "flow.yml"
    file.write_text("name: me/f\nnodes: {a: {app: infsh/echo}}\n")
    flow = read_flow(file)
    assert (flow.namespace, flow.name, list(flow.graph["node_data"])) == ("me", "f", ["a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read"),
        ("name: [", "is no YAML: "),
        ("- a\n", "the flow: it is a list"),
        ("name: f\nnodes: {a: {}}\n", "node 'a': it should have one of app"),
        ("name: f\nnodes: [a]\n", "nodes: it is a list"),
        (
            "name: f\nnodes: {a: {app: x, input: {days: [2030-01-31]}}}\n",
            "nodes.a.input.days[0]: 2030-01-31 is a date",
        ),
        ("name: f\nnodes: {a: {app: x, input: {at: .inf}}}\n", "nodes.a.input.at: inf is no number"),
        ("name: f\nnodes: {2030-01-31: {app: x}}\n", "nodes: the name 2030-01-31 is no text"),
        ("name: 2030-02-31\n", "is no YAML: day"),
        ("name: f\nnodes: &a {b: *a}\n", "without end"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path, text, said):
    file = tmp_path / "flow.yml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CommandFailed) as refused:
        read_flow(file)
    assert said in refused.value.message
    assert "flow.yml" in refused.value.message
    assert refused.value.exit_code is ExitCode.USAGE


def test_an_output_that_is_cut_says_so(capsys):
    flows._print_end({"status_text": "completed", "error": "", "output": {"text": "x" * OUTPUT_SHOWN}})
    assert "characters in all" in capsys.readouterr().out
