"""A child process stands for the browser: it remembers the pages, and ends when nobody holds its input open."""

import subprocess
import sys

CHILD = """
import sys
pages = []
for line in sys.stdin:
    pages.append(line.strip())
    print(" ".join(pages), flush=True)
"""


class App:
    def setup(self):
        self.child = None

    def run(self, input_data: dict):
        if self.child is None:
            command = [sys.executable, "-c", CHILD]
            self.child = subprocess.Popen(
                command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        self.child.stdin.write(input_data["page"] + "\n")
        self.child.stdin.flush()
        return {"pages": self.child.stdout.readline().split(), "pid": self.child.pid}
