"""The forms that a setup has; the environment says which, while the app is imported."""

import os

import pydantic

FORM = os.environ["FORM"]


class AppSetup(pydantic.BaseModel):
    size: str = "small"
    steps: int = 2


class Forms:
    async def nothing(self):
        return "nothing"

    async def metadata(self, metadata):
        return metadata.app_variant

    async def optional(self, metadata=None):
        return metadata.app_variant

    async def config(self, config):
        return dict(config)

    async def model(self, config: AppSetup):
        return config.model_dump()

    async def both(self, setup_data: "AppSetup", metadata):
        return [setup_data.steps, metadata.app_variant]

    def sync(self):
        return "sync"


class App:
    async def run(self, given):
        return self.got


async def setup(self, *args):
    result = form(self, *args)
    self.got = result if FORM == "sync" else await result


form = getattr(Forms, FORM)
if FORM == "sync":
    App.setup = lambda self: setattr(self, "got", form(self))
else:
    import functools

    App.setup = functools.wraps(form)(setup)
