"""Skills that an agent names by their address: fetched once, when the agent is stored or its chat begins.

The text is kept with the version of the agent, or with the chat, so that no step waits for a stranger, and an agent
does not change when somebody changes a file.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx

from stoker import __version__
from stoker.agents.fields import refused
from stoker.agents.skills import MAX_SKILLS, address_of
from stoker.core.addresses import AllowList
from stoker.core.webhooks import shown_receiver
from stoker.outbound import PERMITS, AddressRefused, checked_client, may_reach
from stoker.skill_settings import SkillFields

MAX_REDIRECTS: Final = 3
AT_ONCE: Final = 8
_TYPES: Final = "text/markdown, text/plain, text/*;q=0.9, */*;q=0.5"


class _NotFetched(Exception):
    """Why there is no text, as the end of a sentence."""


async def with_skills(
    config: Mapping[str, Any], settings: SkillFields, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, Any]:
    """A config as it was sent, with the texts of its skills. Nothing is fetched when they are there.

    Args:
        transport: instead of the one that checks addresses, for tests.

    Raises:
        InvalidRequest: names the skill, and why its text is not to be had.
    """
    skills = config.get("skills")
    if not isinstance(skills, list) or not 0 < len(skills) <= MAX_SKILLS:
        return dict(config)  # whoever reads the config says what is wrong with it
    wanted = {
        number: address_of(skill, number) for number, skill in enumerate(skills) if isinstance(skill, Mapping)
    }
    if not any(wanted.values()):
        return dict(config)
    texts: dict[int, str] = {}
    async with checked_client(httpx.Timeout(settings.skill_timeout_s), transport) as client:
        fetcher = _Fetcher(client, settings)
        try:
            async with asyncio.timeout(settings.skill_timeout_s), asyncio.TaskGroup() as group:
                for number, url in wanted.items():
                    if url:
                        group.create_task(fetcher.fetch(number, url, texts))
        except TimeoutError:
            number = next(one for one, url in wanted.items() if url and one not in texts)
            why = f"no answer within {settings.skill_timeout_s:g} s (setting skill_timeout_s)"
            raise _refused(number, wanted[number], why) from None
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
    kept = [skill | {"content": texts[n]} if n in texts else skill for n, skill in enumerate(skills)]
    return {**config, "skills": kept}


class _Fetcher:
    """Fetches texts with one client, a few at the same time."""

    def __init__(self, client: httpx.AsyncClient, settings: SkillFields) -> None:
        self._client = client
        self._allow = AllowList.parse(settings.skill_allow)
        self._most = settings.skill_max_bytes
        self._room = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, number: int, url: str, texts: dict[int, str]) -> None:
        """Put the text of a skill into `texts`.

        Raises:
            InvalidRequest: it is not to be had.
        """
        try:
            async with self._room:
                texts[number] = await self._text(httpx.URL(url))
        except AddressRefused as error:
            why = f"{error.url.host} is not public, and the operator's setting skill_allow does not name it"
            raise _refused(number, url, why) from None
        except httpx.InvalidURL:
            raise _refused(number, url, "the address is none") from None
        except httpx.HTTPError as error:
            raise _refused(number, url, str(error) or type(error).__name__) from None
        except _NotFetched as error:
            raise _refused(number, url, str(error)) from None

    async def _text(self, url: httpx.URL) -> str:
        for _ in range(MAX_REDIRECTS + 1):
            request = self._client.build_request(
                "GET",
                url,
                headers={"User-Agent": f"stoker/{__version__}", "Accept": _TYPES},
                extensions={PERMITS: may_reach(self._allow, url)},
            )
            answer = await self._client.send(request, stream=True)
            try:
                if not answer.has_redirect_location:
                    return await self._whole(answer)
                url = url.join(answer.headers["location"])
                if url.scheme not in {"http", "https"}:
                    raise _NotFetched("it leads to what is no http or https address")
            finally:
                await answer.aclose()
        raise _NotFetched(f"it leads through more than {MAX_REDIRECTS} redirects")

    async def _whole(self, answer: httpx.Response) -> str:
        if answer.status_code != httpx.codes.OK:
            raise _NotFetched(f"the answer has status {answer.status_code}")
        raw = bytearray()
        async for part in answer.aiter_bytes():
            raw += part
            if len(raw) > self._most:
                raise _NotFetched(f"it is larger than {self._most} bytes (setting skill_max_bytes)")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise _NotFetched("it is no text in UTF-8") from None
        if not text.strip() or "\0" in text:
            raise _NotFetched("it is empty" if not text.strip() else "it is no text")
        return text


def _refused(number: int, url: str, why: str) -> Exception:
    """Of the address only its beginning is told: the rest may be a key."""
    return refused(f"skills.{number}.url", f"the text at {shown_receiver(url)} cannot be had: {why}")
