import importlib
import inspect
import json
import platform
from collections.abc import Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from index.errors import CorpusError
from retrieval.sources import open_source, python_docs
from retrieval.sources.python_source import definitions, star_imports
from retrieval.types import Document


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    source = open_source("python-docs")
    found = {document.id: document for document in source.documents()}
    assert source.skipped == []
    return found


SOURCE = b'''# -*- coding: latin-1 -*-
"""Module doc, caf\xe9."""
from .twin import *
import sys

def plain(a, /, b: int = 1, *args, key="x", **rest) -> "str":
    """Plain.

        Indented.
    Not indented.

    """
    def inner():
        """Not here."""

async def later(): "Later."

def no_docstring(): pass

def _private(): "Not here."

if sys.platform == "win32":
    def branch(windows): "Windows."
elif sys.platform:
    def branch(posix): "Posix."
else:
    def other_branch(): "Other."
try:
    def tried(): pass
except ImportError:
    def tried(fallback): "Fallback."
finally:
    def last(): "Last."
with open("x") as f:
    def within(): "Within."

class Base(dict, metaclass=type):
    "Base."
    @property
    def size(self) -> int: "Size."
    @size.setter
    def size(self, value): "Not this."
    @functools.cached_property
    def cached(self): "Cached."
    @classmethod
    def make(cls): "Make."
    def __enter__(self): "Enter."
    def _hidden(self): "Not here."
    class Inner:
        def method(self): "Odd escapes: \\d \\\\ud800"

class _Hidden:
    "Not here."
    def method(self): "Not here."

class Silent:
    @overload
    def __init__(self, a: int): ...
    def __init__(self, a): "Init \\ud800."
'''


def test_definitions_of_a_source_file() -> None:
    found = [(item.name, item.kind, item.signature, item.doc) for item in definitions(SOURCE)]
    assert found == [
        ("", "module", "", "Module doc, café."),
        (
            "plain",
            "function",
            "def plain(a, /, b: int=1, *args, key='x', **rest) -> 'str'",
            "Plain.\n\n    Indented.\nNot indented.",
        ),
        ("later", "function", "async def later()", "Later."),
        ("branch", "function", "def branch(windows)", "Windows."),
        ("other_branch", "function", "def other_branch()", "Other."),
        ("tried", "function", "def tried(fallback)", "Fallback."),
        ("last", "function", "def last()", "Last."),
        ("within", "function", "def within()", "Within."),
        ("Base", "class", "class Base(dict, metaclass=type)", "Base."),
        ("Base.size", "property", "property size -> int", "Size."),
        ("Base.cached", "property", "property cached", "Cached."),
        ("Base.make", "method", "def make(cls)", "Make."),
        ("Base.__enter__", "method", "def __enter__(self)", "Enter."),
        ("Base.Inner.method", "method", "def method(self)", "Odd escapes: \\d \\ud800"),
        ("Silent.__init__", "method", "def __init__(self, a)", "Init \\ud800."),
    ]
    lines = SOURCE.splitlines()
    for item in definitions(SOURCE):
        if item.name:
            assert item.name.rpartition(".")[2].encode() in lines[item.line - 1]


def test_star_imports_resolve_relative_names() -> None:
    source = b"from a.b import *\n  from . import *\nfrom .x import *\nfrom ..y import *\nfrom .z import name\n"
    assert list(star_imports(source, "p.q.m", is_package=False)) == ["a.b", "p.q", "p.q.x", "p.y"]
    assert list(star_imports(source, "p.q", is_package=True)) == ["a.b", "p.q", "p.q.x", "p.y"]


def test_source_that_cannot_be_parsed() -> None:
    with pytest.raises(SyntaxError):
        list(definitions(b"print 'Python 2'"))


def test_entries_everybody_knows(documents: dict[str, Document]) -> None:
    dumps = documents["json.dumps"]
    assert dumps.title == "json.dumps"
    assert dumps.text.startswith("def dumps(obj, *, skipkeys=False, ensure_ascii=True,")
    assert "Serialize ``obj`` to a JSON formatted ``str``." in dumps.text
    assert {key: dumps.metadata[key] for key in ("kind", "module", "package", "version", "file")} == {
        "kind": "function",
        "module": "json",
        "package": "python",
        "version": platform.python_version(),
        "file": "json/__init__.py",
    }
    lines = Path(inspect.getsourcefile(json) or "").read_text(encoding="utf-8").splitlines()
    assert lines[dumps.metadata["line"] - 1].startswith("def dumps(")
    assert documents["pathlib.Path.glob"].metadata["kind"] == "method"
    assert documents["json"].metadata["kind"] == "module"
    assert documents["pathlib.PurePath.name"].metadata["kind"] == "property"
    # Defined in private modules that these public ones take all names from.
    for name in ("decimal.Decimal.quantize", "collections.abc.Sequence"):
        assert documents[name].metadata["module"] == name.rsplit(".", 2 if "Decimal" in name else 1)[0]
    assert "_pyio.open" in documents


def test_the_collection_is_whole_clean_and_stable(documents: dict[str, Document]) -> None:
    assert 6500 < len(documents) < 9500
    assert open_source("python-docs").estimate == pytest.approx(len(documents), rel=0.25)
    kinds = {document.metadata["kind"] for document in documents.values()}
    assert kinds == {"module", "class", "function", "method", "property"}
    for document in documents.values():
        assert not {"test", "tests", "site-packages"} & {*document.metadata["file"].split("/")}
        assert not Path(document.metadata["file"]).is_absolute()
        own = document.id.removeprefix(document.metadata["module"]).split(".")
        assert not any(name.startswith("_") and not name.endswith("__") for name in own), document.id
    again = open_source("python-docs").documents()
    assert [document.id for document in islice(again, 2000)] == list(documents)[:2000]


def described(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield what `module` itself defines with a docstring, as running Python sees it."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if hasattr(value, "_fields"):  # a named tuple writes its own docstring when it runs
            continue
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__qualname__ == name and value.__doc__:
            yield f"{module.__name__}.{name}", inspect.cleandoc(value.__doc__)
        if inspect.isclass(value) and value.__qualname__ == name:
            for inner, member in vars(value).items():
                if (
                    not inner.startswith("_")
                    and inspect.isfunction(member)
                    and member.__qualname__ == f"{name}.{inner}"
                ):
                    yield f"{module.__name__}.{name}.{inner}", inspect.cleandoc(member.__doc__ or "")


@pytest.mark.parametrize(
    "name", ["argparse", "configparser", "json.decoder", "shutil", "statistics", "tarfile", "textwrap"]
)
def test_docstrings_are_those_that_running_python_sees(documents: dict[str, Document], name: str) -> None:
    expected = {key: doc.strip() for key, doc in described(importlib.import_module(name)) if doc.strip()}
    assert len(expected) >= 3
    for key, doc in expected.items():
        assert documents[key].text.endswith(f")\n\n{doc}") or documents[key].text.partition("\n\n")[2] == doc, key


def test_installed_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library and site-packages of our own: the environment's real ones take most of a minute."""
    site, library = tmp_path / "site", tmp_path / "library"
    (library / "json").mkdir(parents=True)
    (library / "json" / "__init__.py").write_text('def dumps(): "Dump."\n')
    for name, text in {
        "tool/__init__.py": '"""Tool."""\nfrom tool._impl import *\n',
        "tool/_impl.py": 'def work(): "Work."\n',
        "tool/tests/check.py": '"""Not here."""',
        "tool/_vendor/copy.py": '"""Not here."""',
        "tool/old.py": "print 'Python 2'",
        "json/dumps.py": '"""Same name as json.dumps: the standard library comes first."""',
        "bare.py": '"""Belongs to no distribution."""',
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, files in {
        "Tool-1.5": "tool/__init__.py,,\ntool/_impl.py,,\ntool/tests/check.py,,\ntool/_vendor/copy.py,,\n"
        "tool/old.py,,\ntool/gone.py,,\n../../bin/script.py,,\n",
        "another-2.0": "json/dumps.py,,\n",
    }.items():
        folder = site / f"{name}.dist-info"
        folder.mkdir()
        distribution, _, version = name.partition("-")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (folder / "RECORD").write_text(files)
    (site / "unlisted-1.dist-info").mkdir()
    (site / "unlisted-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: unlisted\nVersion: 1\n")
    folders = {"stdlib": library, "purelib": site, "platlib": site}
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(folders[name]))
    source = open_source("python-docs:all")
    assert source.estimate is None
    found = list(source.documents())
    assert [(document.id, document.metadata["package"], document.text) for document in found] == [
        ("json.dumps", "python", "def dumps()\n\nDump."),
        ("tool", "Tool", "Tool."),
        ("tool.work", "Tool", "def work()\n\nWork."),
    ]
    assert found[2].metadata == {
        "kind": "function",
        "module": "tool",
        "package": "Tool",
        "version": "1.5",
        "file": "tool/_impl.py",
        "line": 1,
    }
    assert sorted(source.skipped) == [
        "1 skipped, installed without a list of files: unlisted",
        "1 skipped, listed by its distribution but not there: tool/gone.py",
        "1 skipped, not source that this Python can parse: tool/old.py",
    ]


def test_installed_packages_of_this_environment_by_name_and_version() -> None:
    packages = {package.name: package for package in python_docs._installed(python_docs.Skipped())}
    assert packages["pytest"].version == metadata.version("pytest")
    assert "_pytest.fixtures" in {module.name for module in packages["pytest"].modules}
    assert [*packages] == sorted(packages, key=lambda name: (name.lower(), name))


def test_a_python_without_source_files_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(CorpusError, match="no source of the standard library"):
        open_source("python-docs")
