"""The texts of skills in a chat that is stored: written once, and there for whoever goes on with it."""

import pytest
from agent_scene import MODEL, AgentScene

from stoker.agents.beginning import change_chat
from stoker.agents.chat import KIND
from stoker.agents.config import read_config
from stoker.agents.prepare import prepare
from stoker.agents.tools import Internal

SKILLS = [{"name": "tone", "content": "Be kind."}, {"name": "taxes", "content": "Form 7."}]


async def test_the_texts_of_skills_are_beside_what_each_step_writes(scene):
    chat_id = await scene.called("skills", '{"name": "taxes"}', skills=SKILLS)
    await change_chat(scene.desk, chat_id, lambda steps, chat: steps.stop(chat))
    document = await scene.store.documents.get(KIND, chat_id)
    assert b"Form 7." not in document.body
    assert [skill.content for skill in (await scene.chat()).config.skills] == ["Be kind.", "Form 7."]
    assert await scene.results() == [("completed", "Form 7.")]


@pytest.mark.parametrize("fields", [("text", "context"), ("text", "context", "tools")])
async def test_a_model_that_takes_no_tools_has_all_skills_in_its_prompt(fake_store, tmp_path, fields):
    scene = AgentScene(fake_store, tmp_path)
    await scene.deploy_model(fields)
    config = read_config({"core_app_ref": MODEL, "skills": SKILLS})
    reads = (Internal.SKILLS,) if "tools" in fields else ()
    assert (await prepare(config, scene.desk, "ann")).internal == reads
