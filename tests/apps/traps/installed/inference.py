"""Imports a package of its own folder, of which the second step of the installation brought another version."""

import sys

import trapped


class App:
    def run(self, given):
        return {"version": trapped.VERSION, "word": trapped.WORD, "python": list(sys.version_info[:2])}
