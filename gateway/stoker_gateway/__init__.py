"""The front door: keys, validation, submit, streams, files."""
