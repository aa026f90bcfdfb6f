"""A line for fakeredis, which has no socket that could be taken over."""

from redis.exceptions import ResponseError


class LibraryLine:
    """An `Exchange` that leaves the reading to redis-py."""

    def __init__(self, servers):
        self._library = servers.redis.connection_pool.make_connection()

    async def exchange(self, commands):
        if not self._library.is_connected:
            await self._library.connect()
        await self._library.send_packed_command(self._library.pack_commands(commands), check_health=False)
        replies = []
        for _ in commands:
            try:
                replies.append(await self._library.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    async def close(self):
        await self._library.disconnect(nowait=True)
