"""Skills that are fetched: within bounds, from where it is allowed, and with a reason when not."""

import asyncio

import httpx
import pytest

from stoker.core.errors import InvalidRequest
from stoker.outbound import CheckedTransport
from stoker.skill_settings import SkillFields
from stoker_gateway.skills import with_skills

pytestmark = pytest.mark.unit

SETTINGS = SkillFields(skill_max_bytes=1024)
URL = "https://skills.example/secret-path/tax.md?key=s3cret"


class Server:
    """Answers by path, and notes what was asked."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    async def __call__(self, request):
        self.asked.append(str(request.url))
        answer = self.answers[request.url.path.rpartition("/")[2].partition(".")[0]]
        if answer is None:
            await asyncio.Event().wait()
        return answer


def given(*urls, **more):
    return {
        "core_app_ref": "a/b",
        "skills": [{"name": f"s{n}", "url": url} | more for n, url in enumerate(urls)],
    }


async def texts(server, *urls, settings=SETTINGS):
    found = await with_skills(given(*urls), settings, httpx.MockTransport(server))
    return [skill["content"] for skill in found["skills"]]


async def test_texts_are_fetched_each_once_and_the_rest_of_the_config_stays():
    server = Server(tax=httpx.Response(200, text="Förm 7."), tone=httpx.Response(200, text="Kind."))
    found = await with_skills(
        given(URL, "http://skills.example/tone.md", preload=True), SETTINGS, httpx.MockTransport(server)
    )
    assert found == {
        "core_app_ref": "a/b",
        "skills": [
            {"name": "s0", "url": URL, "preload": True, "content": "Förm 7."},
            {"name": "s1", "url": "http://skills.example/tone.md", "preload": True, "content": "Kind."},
        ],
    }
    again = await with_skills(found, SETTINGS, httpx.MockTransport(server))
    assert again == found
    assert sorted(server.asked) == sorted([URL, "http://skills.example/tone.md"])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(404), "the answer has status 404"),
        (httpx.Response(200, text="x" * 1025), r"it is larger than 1024 bytes \(setting skill_max_bytes\)"),
        (httpx.Response(200, content=b"\xff\xfe"), "it is no text in UTF-8"),
        (httpx.Response(200, text=" \n"), "it is empty"),
        (httpx.Response(302, headers={"location": "/tax.md"}), "it leads through more than 3 redirects"),
        (httpx.Response(302, headers={"location": "file:///etc/x"}), "it leads to what is no http or https"),
    ],
)
async def test_what_is_no_text_is_refused_with_the_reason_and_without_the_address(answer, why):
    with pytest.raises(InvalidRequest, match=why) as refusal:
        await texts(Server(tax=answer), URL)
    assert "skills.0.url: the text at https://skills.example cannot be had: " in refusal.value.message
    assert "s3cret" not in refusal.value.message


async def test_a_silent_server_has_an_end_and_is_named():
    server = Server(tone=httpx.Response(200, text="Kind."), tax=None)
    settings = SkillFields(skill_timeout_s=0.1)
    with pytest.raises(InvalidRequest, match=r"skills\.1\.url: .*no answer within 0\.1 s"):
        await texts(server, "https://skills.example/tone.md", URL, settings=settings)


async def test_a_redirect_is_followed_and_checked_anew():
    async def resolve(host, _port):
        return ["10.0.0.1" if host == "inside.example" else "93.184.216.34"]

    server = Server(
        tax=httpx.Response(302, headers={"location": "http://inside.example/tone.md"}),
        tone=httpx.Response(200, text="Kind."),
    )
    transport = CheckedTransport(resolve, httpx.MockTransport(server))
    with pytest.raises(InvalidRequest, match=r"inside\.example is not public, and .* skill_allow"):
        await with_skills(given(URL), SETTINGS, transport)
    allowed = SkillFields(skill_allow=("inside.example",))
    found = await with_skills(given(URL), allowed, CheckedTransport(resolve, httpx.MockTransport(server)))
    assert found["skills"][0]["content"] == "Kind."
