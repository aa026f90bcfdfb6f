"""What is told of a failed installation: outputs of real installers, and what remains of them."""

import pytest

from stoker_worker.build_errors import MAX_CHARS, explain

CASES = {
    "no such package": (
        """\
error: No solution found when resolving dependencies
  cause: Because nosuch was not found in the package registry and you require nosuch, we can conclude that your \
requirements are unsatisfiable.""",
        "No solution found when resolving dependencies: Because nosuch was not found",
        "No package index has it",
    ),
    "no such package, in the form of older versions": (
        """\
  \u00d7 No solution found when resolving dependencies:
  ╰─▶ Because nosuch was not found in the package registry and you require
      nosuch, we can conclude that your requirements are unsatisfiable.""",
        (
            "No solution found when resolving dependencies: Because nosuch was not found in the package registry and "
            "you require nosuch, we can conclude"
        ),
        "No package index has it",
    ),
    "no such version": (
        """\
error: No solution found when resolving dependencies
  cause: Because there is no version of six==99 and you require six==99, we can conclude that your requirements \
are unsatisfiable.""",
        "there is no version of six==99",
        "This version does not exist",
    ),
    "not for this Python": (
        """\
error: No solution found when resolving dependencies
  cause: Because tensorflow==2.5.0 has no wheels with a matching Python ABI tag (e.g., `cp313`) and you require \
tensorflow==2.5.0, we can conclude that your requirements are unsatisfiable.

hint: You require CPython 3.13 (`cp313`), but we only found wheels for `tensorflow` (v2.5.0)""",
        "tensorflow==2.5.0 has no wheels with a matching Python ABI tag",
        "change the kernel",
    ),
    "no git": (
        """\
error: Failed to download and build `x @ git+https://example.org/x.git`
  cause: Git operation failed
  cause: Git executable not found. Ensure that Git is installed and available.""",
        "Git executable not found",
        "apt install git",
    ),
    "no such git address": (
        """\
   Updating https://example.org/x.git (HEAD)
error: Git operation failed
  cause: failed to clone into: /cache/git-v2/db/8def9834d2657108
  cause: process didn't exit successfully: `/usr/bin/git fetch` (exit status: 128)
         --- stderr
         remote: Not found.
         fatal: repository 'https://example.org/x.git/' not found""",
        "fatal: repository 'https://example.org/x.git/' not found",
        "The git address cannot be fetched",
    ),
    "no network": (
        """\
error: Request failed after 3 retries in 9.6s
  cause: Failed to fetch: https://example.org/simple/flask/
  cause: error sending request for url (https://example.org/simple/flask/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)""",
        (
            "Request failed after 3 retries in 9.6s: Failed to fetch: https://example.org/simple/flask/: Connection "
            "refused (os error 111)"
        ),
        "cannot be reached",
    ),
    "no compiler": (
        """\
   Building cext @ file:///app/cext
error: Failed to build `cext @ file:///app/cext`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)

         [stdout]
         running build_ext
         building 'cext' extension

         [stderr]
         error: [Errno 2] No such file or directory: 'gcc'

hint: Build failures usually indicate a problem with the package or the build environment""",
        "Failed to build `cext @ file:///app/cext`: error: [Errno 2] No such file or directory: 'gcc'",
        "build-essential",
    ),
    "a missing header": (
        """\
error: Failed to build `cext @ file:///app/cext`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)

         [stdout]
         gcc -c a.c -o build/a.o

         [stderr]
         a.c:1:10: fatal error: nosuch.h: No such file or directory
             1 | #include "nosuch.h"
         compilation terminated.
         error: Command '['gcc', '-c', 'a.c']' returned non-zero exit status 1.""",
        "fatal error: nosuch.h: No such file or directory",
        "headers",
    ),
    "a setup script that raises": (
        """\
error: Failed to build `old==1`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit status: 1)

         [stderr]
         Traceback (most recent call last):
           File "<string>", line 14, in <module>
         ModuleNotFoundError: No module named 'torch'""",
        "Failed to build `old==1`: ModuleNotFoundError: No module named 'torch'",
        "Building it from source failed",
    ),
    "a contradiction": (
        """\
error: No solution found when resolving dependencies
  cause: Because a==1 depends on numpy<2 and you require numpy>=2, we can conclude that a==1 and your requirements \
are incompatible.""",
        "a==1 depends on numpy<2",
        "contradict",
    ),
    "an unreadable file": (
        """\
error: Couldn't parse requirement in `requirements.txt` at position 0
  cause: Expected one of `@`, `(`, `<`, `=`, `>`, `~`, `!`, `;`, found `b`
         foo bar
             ^""",
        "Couldn't parse requirement in `requirements.txt` at position 0",
        "Correct the file",
    ),
    "a full disk": (
        "error: Failed to extract archive\n  cause: No space left on device (os error 28)",
        "No space left on device",
        "The disk is full",
    ),
    "npm: no such package": (
        """\
npm warn Unknown user config "nodedir".
npm error code E404
npm error 404 Not Found - GET https://example.org/nosuch
npm error 404
npm error 404  The requested resource 'nosuch@1' could not be found or you do not have permission to access it.
npm error A complete log of this run can be found in: /root/.npm/_logs/x-debug-0.log""",
        "Not Found - GET https://example.org/nosuch",
        "No package index has it",
    ),
    "npm: no such version": (
        """\
npm error code ETARGET
npm error notarget No matching version found for zod@99.1.1.
npm error notarget In most cases you or one of your dependencies are requesting a version that doesn't exist.""",
        "No matching version found for zod@99.1.1.",
        "This version does not exist",
    ),
    "npm: no network": (
        """\
npm error code ECONNREFUSED
npm error syscall connect
npm error errno ECONNREFUSED
npm error FetchError: request to http://127.0.0.1:1/zod failed, reason: connect ECONNREFUSED 127.0.0.1:1
npm error     at ClientRequest.<anonymous> (node_modules/minipass-fetch/lib/index.js:130:14)""",
        "request to http://127.0.0.1:1/zod failed",
        "cannot be reached",
    ),
    "something else": ("one\ntwo\n\n", "two", ""),
    "nothing": ("", "", ""),
}


@pytest.mark.parametrize(("output", "essential", "hint"), CASES.values(), ids=CASES)
def test_a_failure_is_told_by_its_essential_line_and_a_hint(output, essential, hint):
    found = explain(output.splitlines())
    assert essential in found.essential
    assert hint in found.hint
    assert bool(hint) == bool(found.hint)


def test_pages_of_reasons_are_cut():
    found = explain(["error: No solution found", "  cause: Because " + "x" * 5000])
    assert len(found.essential) <= MAX_CHARS + 4
