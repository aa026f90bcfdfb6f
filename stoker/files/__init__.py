"""Where the bytes of files are: one small interface, a local directory or an S3-compatible store behind it."""

from stoker.files.store import CHUNK_BYTES, FileStore, Held, file_key, open_files

__all__ = ["CHUNK_BYTES", "FileStore", "Held", "file_key", "open_files"]
