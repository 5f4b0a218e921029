"""Modules lie in packages, packages in layers, and the tests mirror both."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from tests.project import PROJECT

FACES = {"pipeline", "pipeline.errors", "pipeline.adapters", "pipeline.estimator", "pipeline.revisions"}
"""The only modules that lie in no package of `pipeline`."""
LAYERS = (
    {"errors", "revisions"},
    {"utils"},
    {"audio"},
    {"config"},
    {"store"},
    {"encoders", "metrics"},
    {"data", "model"},
    {"extraction", "scoring"},
    {"training"},
    {"report"},
    {"stages"},
)
"""A package imports only from those above it, not from those beside it."""
LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for top in ("pipeline", "stages") for path in (PROJECT / top).rglob("*.py")}


def imports(module: str) -> Iterator[str]:
    """Yield the modules of the project that a module imports, wherever in its code."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def package(module: str) -> str:
    """Return the layer's name for a module: `stages`, or the second part of its name, if any."""
    return "stages" if module.startswith("stages") else module.partition(".")[2].partition(".")[0]


def test_modules_lie_in_packages_of_known_layers() -> None:
    assert {name for name in MODULES if name.startswith("pipeline.") and name.count(".") == 1} - FACES == {
        f"pipeline.{name}" for name in LEVELS if name not in ("errors", "revisions", "stages")
    }


def test_imports_follow_the_layers() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in imports(module)
        if package(module) in LEVELS and package(name) != package(module)
        if LEVELS.get(package(name), len(LAYERS)) >= LEVELS[package(module)]
    ]
    assert wrong == []


def test_no_imports_go_round_in_circles() -> None:
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names a circle


def test_the_tests_mirror_the_packages() -> None:
    code = {str(path.parent.relative_to(PROJECT)).removeprefix("pipeline/") for path in MODULES.values()}
    tests = PROJECT / "tests"
    folders = {str(path.parent.relative_to(tests)) for path in tests.glob("*/**/__init__.py")}
    assert {name for name in code if "/" not in name or name.startswith("stages/")} - folders == {"pipeline"}
    assert folders - code == {"docs"}
