"""A gateway alone, inside the test's process, on a real Redis."""

import asyncio
import contextlib

import httpx
from helpers import eventually
from stores import files_settings

from stoker.settings import GatewaySettings
from stoker_gateway.main import serve

PLAIN_HTTP = {"trust_env": False, "timeout": 30, "verify": False}
"""Reads no certificates, which takes 20 ms a client."""
TUS = {"tus-resumable": "1.0.0", "content-type": "application/offset+octet-stream"}


class Gateway:
    """`client` has the first key; `open` has none, as uploads and downloads need none.

    `stop` ends it, and `serving` is done then.
    """

    def __init__(self, settings, url):
        self.settings = settings
        self.url = url
        key = settings.key_file.read_text().strip()
        self.client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, **PLAIN_HTTP
        )
        self.open = httpx.AsyncClient(base_url=url, **PLAIN_HTTP)

    async def announce(self, **file):
        answer = await self.client.post("/files", json={"files": [{"uri": "", **file}]})
        assert answer.status_code == 200, answer.text
        [made] = answer.json()["data"]
        return made

    async def upload(self, content, content_type="text/plain", **file):
        """Announce a file and put its bytes; its record."""
        made = await self.announce(size=len(content), content_type=content_type, **file)
        answer = await self.open.put(
            made["upload_url"], content=content, headers={"content-type": content_type}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def break_off(self, url, head, body):
        """Send the beginning of a request, and close the connection."""
        _, writer = await self.begin(url, head, body)
        writer.close()
        await writer.wait_closed()

    async def begin(self, url, head, body):
        """Send the beginning of a request: its head, and a part of the body."""
        parts = httpx.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        method, headers = head
        lines = [f"{method} {parts.raw_path.decode()} HTTP/1.1", f"host: {parts.host}:{parts.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return reader, writer

    async def offset(self, url):
        answer = await self.open.head(url)
        assert answer.status_code == 200
        return int(answer.headers["upload-offset"])

    async def arrived(self, file_id, size):
        """Wait until so many bytes are in the spool; asking over HTTP would end the request that writes."""
        path = self.settings.files_dir / "uploads" / file_id
        await eventually(lambda: path.exists() and path.stat().st_size >= size, f"{size} bytes in the spool")


@contextlib.asynccontextmanager
async def running(settings):
    """A gateway with these settings, until the block ends."""
    settings.url_file.unlink(missing_ok=True)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    try:
        await eventually(lambda: settings.url_file.exists() or serving.done(), "the gateway")
        if serving.done():
            await serving
        made = Gateway(settings, settings.url_file.read_text())
        made.stop, made.serving = stop, serving
        yield made
        await made.client.aclose()
        await made.open.aclose()
    finally:
        stop.set()
        await serving


def gateway_settings(kind, tmp_path, s3_server, store, **more):
    return files_settings(
        kind,
        tmp_path,
        s3_server,
        GatewaySettings,
        redis_url=store.url,
        pool=store.pool,
        port=0,
        rate_upload=0,
        rate_get=0,
        **more,
    )
