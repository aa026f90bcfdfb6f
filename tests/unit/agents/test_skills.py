"""Skills: what is in the prompt, what the model reads, and when."""

import pytest

from stoker.agents.chat import Chat
from stoker.agents.config import read_config
from stoker.agents.prompt import model_input, system_prompt
from stoker.agents.step import Said, Steps
from stoker.agents.tools import Internal
from stoker.core.messages import Owner
from stoker.llm.contract import LlmOutput, ToolCall

pytestmark = pytest.mark.unit

STEPS = Steps(now_ms=1000)
SKILLS = [
    {"name": "tone", "content": "Be kind.", "preload": True},
    {"name": "taxes", "description": "How to file taxes", "content": "Form 7."},
    {"name": None, "content": "Nameless."},
]


def begun(**config):
    config = read_config({"core_app_ref": "a/b", "skills": SKILLS} | config)
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=config)
    return STEPS.say(chat, Said(text="Go"))


def test_the_model_has_what_is_preloaded_and_is_told_of_the_rest():
    prompt = system_prompt(begun())
    assert "# Skill tone\nBe kind." in prompt
    assert "- taxes: How to file taxes\n- skill-3" in prompt
    assert "Form 7." not in prompt


def test_the_model_reads_a_skill_by_its_name():
    chat = begun()
    [told] = model_input(chat, chat.turn)["tools"]
    assert told["function"]["name"] == "skills"
    assert told["function"]["parameters"]["properties"]["name"]["enum"] == ["taxes", "skill-3"]
    for name in ("taxes", "tone"):
        asked = ToolCall(id="m", name="skills", arguments=f'{{"name": "{name}"}}')
        chat = STEPS.answered(chat, chat.turn.id, LlmOutput(tool_calls=(asked,)))
    found = [(call.status, call.result) for message in chat.messages for call in message.calls]
    assert found[0] == ("completed", "Form 7.")
    assert found[1][0] == "failed"
    assert chat.run.state == "working"


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        ({}, True),
        ({"internal_tools": {"skills": None}}, True),
        ({"internal_tools": {"skills": False}}, False),
        ({"skills": SKILLS[:1]}, False),
        ({"skills": []}, False),
    ],
)
def test_the_tool_is_there_when_there_is_anything_to_read(config, reads):
    chat = begun(**config)
    assert (Internal.SKILLS in chat.config.internal) is reads
    assert ("tools" in model_input(chat, chat.turn)) is reads


def test_without_the_tool_every_skill_is_in_the_prompt():
    prompt = system_prompt(begun(internal_tools={"skills": False}))
    assert "# Skill taxes: How to file taxes\nForm 7." in prompt
    assert "Nameless." in prompt
