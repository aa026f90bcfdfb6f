"""Returns files as it is told to."""

import os
import tempfile
from pathlib import Path


class File:
    def __init__(self, path, filename=None):
        self.path, self.uri, self.content_type = str(path), None, None
        self.size, self.filename = None, filename


class App:
    async def run(self, input_data):
        folder = Path(tempfile.mkdtemp())
        return getattr(self, "_" + input_data["do"])(folder, input_data)

    def _deep(self, folder, given):
        one, two = folder / "one.txt", folder / "Bär.png"
        one.write_text("one")
        two.write_bytes(b"two!")
        return {"a": [{"b": {"c": File(one)}}, "text"], "same": File(one), "other": (File(two), 7)}

    def _missing(self, folder, given):
        return {"good": File(__file__), "list": [{"film": File(folder / "never-written.mp4")}]}

    def _directory(self, folder, given):
        return {"film": File(folder)}

    def _large(self, folder, given):
        path = folder / "large.bin"
        with path.open("wb") as file:
            file.write(b"begin")
            file.truncate(given["size"])
            file.seek(-3, os.SEEK_END)
            file.write(b"end")
        return {"film": File(path)}

    def _text(self, folder, given):
        return {"read": given.get("file", "")}
