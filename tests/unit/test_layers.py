"""Imports only go down: index <- retrieval <- evaluation <- training, api on top."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "index": set(),
    "retrieval": {"index"},
    "evaluation": {"index", "retrieval"},
    "training": {"index", "retrieval", "evaluation"},
    "api": {"index", "retrieval"},
}
LAZY = {"api": {"evaluation", "training"}}
"""What may be imported inside functions only."""


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide layers"
            names.add((node.module or "").split(".")[0])
    return names & ALLOWED.keys()


def at_import_time(tree: ast.Module) -> set[str]:
    class Outside(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.Pass:  # noqa: ARG002  ast calls it so
            return ast.Pass()

        visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  ast's name

    return imported(Outside().visit(tree))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_only_go_down(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        source = path.read_text(encoding="utf-8")
        everything = imported(ast.parse(source)) - {package}
        assert everything <= ALLOWED[package] | LAZY.get(package, set()), path
        assert at_import_time(ast.parse(source)) - {package} <= ALLOWED[package], path


def test_the_check_sees_an_upward_import() -> None:
    assert imported(ast.parse("def f():\n    from evaluation.measures import mean")) == {"evaluation"}
    assert at_import_time(ast.parse("def f():\n    from evaluation.measures import mean")) == set()
    assert at_import_time(ast.parse("import retrieval.types")) == {"retrieval"}


def test_index_knows_no_text_engine_and_no_model() -> None:
    for path in (ROOT / "index").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        } | {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & {"sqlite3", "tantivy", "sentence_transformers", "transformers", "tokenizers"}, path
