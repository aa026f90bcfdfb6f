import asyncio
import base64
import hashlib
import os
import sys
import urllib.parse

from pydantic import BaseModel

AT_IMPORT = os.environ.get("API_TOKEN", "")


class Ask(BaseModel):
    do: str = "tell"


class Told(BaseModel):
    at_import: str
    digests: dict[str, str]
    argv: list[str]
    pid: int


class App:
    async def setup(self):
        print(f"setup with {AT_IMPORT}")

    async def run(self, input_data: Ask) -> Told:
        token = os.environ.get("API_TOKEN", "")
        if input_data.do == "print":
            print(f"the token is {token}, as the app prints it")
            print("encoded", urllib.parse.quote(token, safe=""), base64.b64encode(f"user:{token}".encode()).decode())
            sys.stdout.write(f"begun {token[:7]}")
            sys.stdout.flush()
            sys.stdout.write(f"{token[7:]} ended\n")
            sys.stdout.flush()
        if input_data.do.startswith("hold "):
            await until_there(input_data.do.removeprefix("hold "))
        if input_data.do == "fail":
            raise RuntimeError(f"the service refused {token}")
        names = ("API_TOKEN", "SECOND_TOKEN", "FROM_OPERATOR", "OPERATOR_TOKEN")
        return Told(
            at_import=digest(AT_IMPORT),
            digests={name: digest(os.environ[name]) for name in names if name in os.environ},
            argv=sys.argv,
            pid=os.getpid(),
        )


async def until_there(path: str):
    async with asyncio.timeout(60):
        while not os.path.exists(path):
            await asyncio.sleep(0.01)


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
