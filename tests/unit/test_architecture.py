"""The promises about the code itself: who imports whom, what is public, that each file says why."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import roost

ROOT = Path(__file__).parent.parent.parent
MODULES = sorted((ROOT / "src").rglob("*.py"))
#: Only an image built with it has these, and nothing else imports what does.
ONEDATA = {"mfusepy", "onedatafilerestclient", "requests"}
NODE_MAY_IMPORT = {"roost_node", "cryptography", "supervisor", *sys.stdlib_module_names}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT / "src"))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def test_there_is_something_to_look_at() -> None:
    assert {"roost/plan.py", "roost_node/vocab.py"} <= set(map(_name, MODULES))


def test_import_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert contracts["contracts"]
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, verbose=False)
    assert status == EXIT_STATUS_SUCCESS, "an import breaks a contract of pyproject.toml: see above"


@pytest.mark.parametrize("path", [p for p in MODULES if p.read_text().strip()], ids=_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(_tree(path))


def test_the_public_names_are_sorted_and_complete() -> None:
    exported = list(getattr(roost, "__all__", ()))
    assert exported == sorted(set(exported))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(_tree(ROOT / "src" / "roost" / "__init__.py"))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("roost")
        for alias in node.names
    }
    public = {name for name in imported if not name.startswith("_")}
    assert public <= set(exported)
    for name in exported:
        assert getattr(roost, name) is not None


def _imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, wherever the statement stands."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "roost_node" if node.level else str(node.module).partition(".")[0]


@pytest.mark.parametrize(
    "path", [p for p in MODULES if _name(p).startswith("roost_node/")], ids=_name
)
def test_the_node_imports_only_what_the_image_has(path: Path) -> None:
    more = ONEDATA if _name(path).startswith("roost_node/data/onedata/") else set()
    assert set(_imported(path)) <= NODE_MAY_IMPORT | more


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_the_door_to_subprocesses_is_the_only_one(path: Path) -> None:
    if _name(path).startswith("roost/") and path.name != "_run.py":
        assert "subprocess" not in set(_imported(path)), "use roost._run"
