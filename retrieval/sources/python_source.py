"""Docstrings of one Python source file, read with `ast`: nothing is imported, so nothing runs."""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

_PROPERTIES = frozenset({"property", "cached_property", "abstractproperty"})
_STAR_IMPORT = re.compile(rb"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+\*", re.MULTILINE)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Definition(NamedTuple):
    """Something with a docstring. name: dotted, within its module, "" for the module itself. line: 1-based."""

    name: str
    kind: str
    signature: str
    doc: str
    line: int


def definitions(source: bytes) -> Iterator[Definition]:
    """Yield what has a docstring: the module, then classes, functions, methods and properties in source order.

    Private names (a leading underscore) and all within them are left out, double-underscore methods are kept; so are
    definitions under `if`, `try` and `with`, but not those within functions. Of several definitions of one name
    (overloads, setters, platform branches) the first with a docstring counts.
    Raises SyntaxError, ValueError or RecursionError on source that this Python cannot parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in somebody else's source
        tree = ast.parse(source)
    if doc := _doc(tree):
        yield Definition("", "module", "", doc, 1)
    seen = set()
    for definition in _within(tree.body, ""):
        if definition.name not in seen:
            seen.add(definition.name)
            yield definition


def star_imports(source: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the absolute names of the modules that `module` takes all names from."""
    for match in _STAR_IMPORT.finditer(source):
        name = match[1].decode("utf-8", "replace")
        relative = name.lstrip(".")
        dots = len(name) - len(relative)
        if not dots:
            yield name
            continue
        parts = module.split(".")
        base = parts[: len(parts) - dots + is_package]
        yield ".".join([*base, relative] if relative else base)


def is_private(name: str) -> bool:
    """Return whether one name is private by its leading underscore; double-underscore names are Python's own."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _doc(node: ast.Module | ast.ClassDef | _Function) -> str:
    """Return the cleaned docstring; half characters that only an escape can write are written as that escape again."""
    doc = ast.get_docstring(node, clean=False) or ""
    return inspect.cleandoc(doc).strip().encode("utf-8", "backslashreplace").decode()


def _within(body: list[ast.stmt], outer: str) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, ast.ClassDef | _Function):
            if not is_private(node.name):
                yield from _definition(node, outer)
        elif isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With):
            for inner in _branches(node):
                yield from _within(inner, outer)


def _branches(node: ast.If | ast.Try | ast.TryStar | ast.With) -> Iterator[list[ast.stmt]]:
    yield node.body
    if isinstance(node, ast.Try | ast.TryStar):
        yield from (handler.body for handler in node.handlers)
    if not isinstance(node, ast.With):
        yield node.orelse
    if isinstance(node, ast.Try | ast.TryStar):
        yield node.finalbody


def _definition(node: ast.ClassDef | _Function, outer: str) -> Iterator[Definition]:
    name = f"{outer}.{node.name}" if outer else node.name
    doc = _doc(node)
    if isinstance(node, ast.ClassDef):
        if doc:
            bases = ", ".join(ast.unparse(base) for base in [*node.bases, *node.keywords])
            yield Definition(
                name, "class", f"class {node.name}({bases})" if bases else f"class {node.name}", doc, node.lineno
            )
        yield from _within(node.body, name)
    elif doc:
        kind = "method" if outer else "function"
        if _PROPERTIES & {_last_name(decorator) for decorator in node.decorator_list}:
            kind = "property"
        yield Definition(name, kind, _signature(node, kind), doc, node.lineno)


def _last_name(decorator: ast.expr) -> str:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def _signature(node: _Function, kind: str) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if kind == "property":
        return f"property {node.name}{returns}"
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{prefix} {node.name}({ast.unparse(node.args)}){returns}"
