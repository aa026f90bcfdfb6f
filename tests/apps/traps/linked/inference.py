"""Imports a helper relatively, and that one is a link to a file outside of the folder."""

from .shared_helper import WORD


class App:
    async def run(self, input_data: dict):
        return {"word": WORD}
