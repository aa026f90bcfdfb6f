"""What the connection of a store sends together: how many round trips something costs."""


class Batches(list):
    """The batches that left since this was made, each a list of commands."""

    def __init__(self, store, monkeypatch):
        super().__init__()
        line = store._connection._line
        own = line.exchange

        async def exchange(commands):
            self.append(list(commands))
            return await own(commands)

        monkeypatch.setattr(line, "exchange", exchange)

    @property
    def names(self):
        """Of the commands of each batch."""
        return [[command[0] for command in batch] for batch in self]
