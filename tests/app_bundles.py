"""App bundles made by hand, for tests that speak HTTP only."""

import io
import json
import tarfile

CODE = "class App:\n    async def run(self, input_data):\n        return input_data\n"
FUNCTIONS = {"run": {"name": "run", "input_schema": {"type": "object"}, "output_schema": {}}}


def bundle(files):
    """A .tar.gz of texts by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def app_bundle(code=CODE, **manifest):
    """The bundle of an app; `manifest` is its inf.yml (JSON is YAML too)."""
    return bundle({"inf.yml": json.dumps({"name": "made"} | manifest), "inference.py": code})


def upload(http, data, name="app.tar.gz"):
    """Store bytes; the id of the file."""
    entry = {"filename": name, "size": len(data), "category": "app"}
    [file] = data_of(http.post("/files", json={"files": [entry]}))
    http.put(file["upload_url"], content=data, headers={"authorization": ""}).raise_for_status()
    return file["id"]


def version_of(http, data, **fields):
    """The body of a new version whose bundle was uploaded."""
    return {"bundle_file_id": upload(http, data), "functions": FUNCTIONS} | fields


def data_of(answer):
    """What an answer holds, in any envelope."""
    body = answer.json()
    return body["data"] if isinstance(body, dict) and "data" in body else body
