"""Rules for inference.py, read and not run: what is told here saves building an environment to find it out."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from stoker_cli.checks.findings import Finding, error, warning

ENTRY_FILE: Final = "inference.py"
NOT_FUNCTIONS: Final = frozenset({"setup", "unload", "on_cancel"})
SDK_BASES: Final = frozenset({"BaseApp", "object"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Code(Struct, frozen=True, kw_only=True):
    """What was found. `functions`: name -> line; None where only running the code would tell."""

    findings: tuple[Finding, ...]
    functions: dict[str, int] | None = None


def check_code(folder: Path, source: bytes, python: str) -> Code:
    """Everything that is wrong with an app's code as far as it shows without running it.

    Args:
        folder: the app's, to look for the modules that are imported from it.
        source: the bytes of inference.py.
        python: version that the app runs on, `3.12`.
    """
    try:
        tree = ast.parse(source, ENTRY_FILE)
    except (SyntaxError, ValueError) as problem:
        line = getattr(problem, "lineno", 0) or 0
        said = getattr(problem, "msg", str(problem))
        if _version(python) > sys.version_info[:2]:
            own = f"{sys.version_info.major}.{sys.version_info.minor}"
            return Code(
                findings=(
                    warning(
                        ENTRY_FILE,
                        line,
                        f"could not be checked with Python {own} ({said}): it is for {python}",
                    ),
                )
            )
        return Code(findings=(error(ENTRY_FILE, line, f"no valid Python: {said}"),))
    findings = list(_imports(tree, folder))
    app, more = _find_app(tree)
    findings += more
    functions: dict[str, int] | None = None
    if app is not None:
        functions, more = _functions(app)
        findings += [*_constructor(app), *more]
    return Code(findings=tuple(findings), functions=functions)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import, those in `if` and `try` too."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for block in ("body", "orelse", "finalbody"):
                waiting += getattr(node, block, [])
            for handler in getattr(node, "handlers", []):
                waiting += handler.body


def _find_app(tree: ast.Module) -> tuple[ast.ClassDef | None, list[Finding]]:
    """The class App; None without a finding where it comes from elsewhere."""
    classes = [node for node in _top_level(tree) if isinstance(node, ast.ClassDef) and node.name == "App"]
    if classes:
        again = [
            warning(ENTRY_FILE, node.lineno, "a second class App replaces the one before")
            for node in classes[1:]
        ]
        return classes[-1], again
    for node in _top_level(tree):
        names = []
        if isinstance(node, (ast.ImportFrom, ast.Import)):
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if "App" in names or "*" in names:
            return None, []
    return None, [error(ENTRY_FILE, 0, "there is no class App: the platform looks for it by that name")]


def _imports(tree: ast.Module, folder: Path) -> Iterator[Finding]:
    """Relative imports of what is not in the folder."""
    for node in _top_level(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if node.level > 1:
            yield error(ENTRY_FILE, node.lineno, "imports from above the app's folder, which is not deployed")
            continue
        modules = [node.module] if node.module else [alias.name for alias in node.names]
        for module in modules:
            path = folder.joinpath(*module.split("."))
            found = path.is_dir() or any(path.parent.glob(f"{path.name}.*"))
            if not found and (node.module or not (folder / "__init__.py").is_file()):
                yield error(ENTRY_FILE, node.lineno, f"imports .{module}, which is not in the folder")


def _constructor(app: ast.ClassDef) -> Iterator[Finding]:
    for node in app.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == "__init__":
            needed = len(_positional(node)) - 1 - len(node.args.defaults)
            needed += sum(default is None for default in node.args.kw_defaults)
            if needed > 0:
                yield error(
                    ENTRY_FILE, node.lineno, "App.__init__ must need no arguments: the platform calls App()"
                )


def _positional(node: Function) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args]


def _functions(app: ast.ClassDef) -> tuple[dict[str, int] | None, list[Finding]]:
    found: dict[str, int] = {}
    findings: list[Finding] = []
    for node in app.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        if node.name in NOT_FUNCTIONS or _is_static(node):
            continue
        inputs = [arg for arg in _positional(node)[1:] if arg.arg != "metadata"]
        if node.name != "run" and not (inputs and inputs[0].annotation is not None):
            continue  # a helper
        if node.name == "run" or _may_be_model(inputs[0].annotation):
            found[node.name] = node.lineno
            findings += _signature(node, inputs)
    bases = {base.id if isinstance(base, ast.Name) else "?" for base in app.bases}
    if bases - SDK_BASES:
        return None, findings  # a base class of the app's own may bring more
    if not found:
        findings.append(
            error(
                ENTRY_FILE,
                app.lineno,
                "App has no function: it needs a public method whose first parameter is a model, such as "
                "async def run(self, input_data: AppInput) -> AppOutput",
            )
        )
    return found, findings


def _signature(node: Function, inputs: list[ast.arg]) -> Iterator[Finding]:
    if not inputs:
        yield warning(ENTRY_FILE, node.lineno, f"{node.name} takes no input: what callers send is ignored")
    elif inputs[0].annotation is None:
        yield warning(
            ENTRY_FILE, node.lineno, f"{node.name}: {inputs[0].arg} has no type, so any input is taken"
        )
    if node.returns is None:
        yield warning(ENTRY_FILE, node.lineno, f"{node.name} has no return type, so its output has no schema")


def _is_static(node: Function) -> bool:
    names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    return bool(names & {"staticmethod", "classmethod", "property"})


def _may_be_model(annotation: ast.expr | None) -> bool:
    """Whether an annotation may name a model: not one of the plain types, which make a method a helper."""
    plain = {"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "Any", "Path", "None"}
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value.split("[")[0] not in plain
    if isinstance(annotation, ast.Subscript):
        return isinstance(annotation.value, ast.Name) and annotation.value.id == "Optional"
    return not (isinstance(annotation, ast.Name) and annotation.id in plain)
