"""Returns files as it is told to."""

import hashlib
import tempfile
from pathlib import Path

BLOCK_BYTES = 1024 * 1024


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
        path, digest = folder / "large.bin", hashlib.sha256()
        with path.open("wb") as file:
            for number in range(given["size"] // BLOCK_BYTES):  # a block that is lost or swapped is seen
                block = number.to_bytes(8, "big") * (BLOCK_BYTES // 8)
                digest.update(block)
                file.write(block)
        return {"film": File(path), "sha256": digest.hexdigest()}

    def _text(self, folder, given):
        return {"read": given.get("file", "")}
