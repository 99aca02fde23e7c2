"""The documentation of this Python: docstrings of its standard library, and of the installed packages, from source.

    python-docs        the standard library
    python-docs:all    and the packages in this environment's site-packages

    id, title   the qualified name: `json.dumps`, `pathlib.Path.glob`
    text        the signature and the docstring
    metadata    kind (module, class, function, method, property), module, package (`python`, or the distribution),
                version (of Python, or the distribution), file (below its root), line

Nothing is imported. Modules written in C have no source and are not here (`math`, `itertools`); those with a twin in
Python are (`heapq`). A private module keeps its own name (`_pyio.open`), unless a public one takes all names from it:
`decimal.Decimal` is defined in `_pydecimal`. Tests, vendored copies (`_vendor`) and private names are left out, see
`python_source.definitions`. Of several definitions of one qualified name the first counts: standard library first, then
distributions by name; modules by name. So the order and the ids depend on nothing but the files.
"""

import os
import platform
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from index.durable import storage_errors
from index.errors import CorpusError
from retrieval.sources.python_source import Definition, definitions, is_private, star_imports
from retrieval.sources.source import Placed, Skipped, Source
from retrieval.types import Document

_LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_vendor"})
_BYTES_PER_DOCUMENT = 1700
"""Source bytes per docstring in CPython 3.11's library; for the estimate only."""


class _Module(NamedTuple):
    """name: as imported. file: path below the root, for people."""

    name: str
    path: Path
    file: str


class _Package(NamedTuple):
    name: str
    version: str
    modules: list[_Module]


def python_docs_source(*, installed: bool) -> Source:
    """Source of the standard library's docstrings; with `installed`, of the environment's packages too.

    About 7,200 documents on CPython 3.11 in about 2 seconds. Raises CorpusError where the library has no source files.
    """
    library = _standard_library()
    estimate = sum(module.path.stat().st_size for module in library.modules) // _BYTES_PER_DOCUMENT

    def read(skipped: Skipped) -> Iterator[Placed]:
        seen: set[str] = set()
        yield from _documents(library, seen, skipped)
        if installed:
            for package in _installed(skipped):
                yield from _documents(package, seen, skipped)

    if installed:
        return Source(f"documentation of Python {library.version} and the installed packages", None, read)
    return Source(f"documentation of Python {library.version}", estimate, read)


def _standard_library() -> _Package:
    root = Path(sysconfig.get_path("stdlib"))
    modules = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name not in _LEFT_OUT)
        files = (Path(folder, name).relative_to(root).as_posix() for name in sorted(names))
        modules += [module for file in files if (module := _module(root / file, file))]
    if not modules:
        raise CorpusError(f"{root} holds no source of the standard library: use a Python that comes with its .py files")
    return _Package("python", platform.python_version(), modules)


def _module(path: Path, file: str) -> _Module | None:
    """Return the module that a file is, None if it is none or left out."""
    if not file.endswith(".py"):
        return None
    parts = file.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    if not parts or not all(part.isidentifier() for part in parts) or _LEFT_OUT & {*parts}:
        return None
    return None if parts[-1].startswith("test_") else _Module(".".join(parts), path, file)


def _installed(skipped: Skipped) -> Iterator[_Package]:
    """Yield the distributions in site-packages by name, each with the modules its own list of files names."""
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    found = {str(item.metadata["Name"]): item for item in reversed(list(metadata.distributions(path=folders)))}
    for name in sorted(found, key=lambda name: (name.lower(), name)):
        files = found[name].files
        if files is None:
            skipped.add("installed without a list of files", name)
            continue
        modules = [_module(Path(str(found[name].locate_file(file))), file.as_posix()) for file in files]
        yield _Package(name, found[name].version, [module for module in modules if module])


def _documents(package: _Package, seen: set[str], skipped: Skipped) -> Iterator[Placed]:
    public = _public_names(package)
    # A public module before what it takes from private ones: its own docstring names it best.
    for module in sorted(
        package.modules, key=lambda module: (public.get(module.name, module.name), module.name in public, module.file)
    ):
        name = public.get(module.name, module.name)
        for definition in _definitions(module, skipped):
            qualified = f"{name}.{definition.name}" if definition.name else name
            if qualified not in seen:
                seen.add(qualified)
                yield Placed(
                    f"{module.file} line {definition.line}",
                    _document(qualified, name, definition, package, module.file),
                )


def _public_names(package: _Package) -> dict[str, str]:
    """Return private module -> public module, where the public one star-imports it; the first by name counts.

    The private one is at the top level (`_pydecimal`) or within the public one (`pathlib._local` of Python 3.13).
    """
    own = {module.name for module in package.modules}
    public: dict[str, str] = {}
    for module in sorted(package.modules):
        if any(is_private(part) for part in module.name.split(".")):
            continue
        source = _source(module)
        for name in star_imports(source, module.name, is_package=module.path.name == "__init__.py"):
            parent, _, last = name.rpartition(".")
            if name in own and is_private(last) and parent in {"", module.name}:
                public.setdefault(name, module.name)
    return public


def _source(module: _Module) -> bytes:
    """Return the file's content, nothing if it is not there."""
    with storage_errors("read", module.path):
        return module.path.read_bytes() if module.path.is_file() else b""


def _definitions(module: _Module, skipped: Skipped) -> list[Definition]:
    if not module.path.is_file():
        skipped.add("listed by its distribution but not there", module.file)
        return []
    try:
        return list(definitions(_source(module)))
    except (SyntaxError, ValueError, RecursionError):
        skipped.add("not source that this Python can parse", module.file)
        return []


def _document(qualified: str, module: str, definition: Definition, package: _Package, file: str) -> Document:
    text = f"{definition.signature}\n\n{definition.doc}" if definition.signature else definition.doc
    facts = {
        "kind": definition.kind,
        "module": module,
        "package": package.name,
        "version": package.version,
        "file": file,
        "line": definition.line,
    }
    return Document(qualified, text, qualified, facts)
