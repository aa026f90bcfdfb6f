"""Reads a secret while it is imported, and must be importable without."""

import os

KEY = os.environ.get("A_KEY", "")


class App:
    def run(self, given: dict):
        return {"key": KEY}
