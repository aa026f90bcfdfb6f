"""Sleeps in its setup as a load would take, and in its run as a task would. Another `model` is another instance."""

import asyncio


class App:
    async def setup(self, config):
        await asyncio.sleep(config["load_s"])

    async def run(self, input_data):
        await asyncio.sleep(input_data["run_s"])
        return {}
