"""Says what it was given as files: where they lie, what they are called, what is in them."""

import hashlib
from pathlib import Path
from typing import Dict, List, Optional

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File


class In(BaseAppInput):
    image: File
    maybe: Optional[File] = None
    more: List[File] = []
    named: Dict[str, File] = {}


class Out(BaseAppOutput):
    image: dict
    more: List[dict]
    named: Dict[str, dict]
    cached: List[str]


def shown(file):
    digest = hashlib.sha256()
    with Path(file.path).open("rb") as content:
        while chunk := content.read(1024 * 1024):
            digest.update(chunk)
    return {
        "path": file.path,
        "uri": file.uri,
        "filename": file.filename,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": digest.hexdigest(),
    }


class App(BaseApp):
    async def run(self, data: In) -> Out:
        return Out(
            image=shown(data.image),
            more=[shown(file) for file in data.more],
            named={name: shown(file) for name, file in data.named.items()},
            cached=[str(path) for path in File.get_cache_dir().rglob("*")],
        )
