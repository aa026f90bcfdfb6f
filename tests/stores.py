"""Both file stores, for tests that hold for either: a directory, and a bucket on a real S3 server."""

import itertools
import logging
import os

import boto3
from moto.server import ThreadedMotoServer

from stoker.settings import FilesSettings

ACCESS_KEY = "access-key-of-tests"
SECRET_KEY = "secret-key-of-tests"
_buckets = itertools.count()


class S3Server:
    """moto's server on loopback, in a thread."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.url = "http://{}:{}".format(*self._server.get_host_and_port())
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def stop(self):
        self._server.stop()

    def bucket(self):
        """A new bucket with a prefix in it, as settings."""
        name = f"bucket-{os.getpid()}-{next(_buckets)}"
        self.client.create_bucket(Bucket=name)
        return {
            "files_url": f"s3://{name}/some/prefix",
            "files_endpoint": self.url,
            "files_access_key": ACCESS_KEY,
            "files_secret_key": SECRET_KEY,
        }


def files_settings(kind, tmp_path, s3_server, cls=FilesSettings, **more):
    """Settings of a store of the kind `local` or `s3`, empty."""
    place = s3_server().bucket() if kind == "s3" else {}
    return cls(data_dir=tmp_path / "data", **place, **more)


async def chunks(*parts):
    for part in parts:
        yield part


async def read(store, key, start=0, length=None):
    return b"".join([chunk async for chunk in store.get(key, start, length)])
