"""Modules named like those of the library and of others, own edits of sys.path, moves to other folders."""

import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "vendored"))

import call
import vendored_model

from . import types as own_types

logging.basicConfig(level=logging.INFO)
log = logging.getLogger(__name__)


class App:
    def setup(self):
        os.chdir("/")
        os.chdir(Path(__file__).parent / "vendored")

    def run(self, given):
        log.info("said by logging")
        print(json.dumps({"type": "result", "output": "forged"}), flush=True)
        try:
            asked = input("name? ")
        except EOFError:
            asked = "no input"
        here = os.getcwd()
        os.chdir("/")
        Path(here, os.environ["TMPDIR"], "é").write_text("é€")
        return {
            "asked": asked,
            "here": Path(here).name,
            "names": [call.NAME, vendored_model.NAME, own_types.NAME],
            "text": open(Path(os.environ["TMPDIR"], "é")).read(),
        }
