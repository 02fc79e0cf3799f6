"""The layers: who may import whom, and what a pytest run that wants nothing of us does not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import pytest_rerunsafe

PACKAGE = "pytest_rerunsafe"
FOLDER = Path(pytest_rerunsafe.__file__).parent
PLUGIN_SIDE = {"plugin", "items", "fixtures", "options", "hookspecs"}
STUDY_SIDE = {"again", "budget", "causes", "study", "clean", "intervals", "trials"}
BELOW = {
    "plugin": {"plugin", "check", "study", "settings", "report", "compare", "model", "__init__"},
    "check": {"check", "study", "settings", "explore", "model"},
    "study": {"study", "settings", "explore", "compare", "report", "model"},
    "settings": {"model"},
    "explore": {"explore", "world", "airflow", "model"},
    "world": {"world", "model"},
    "airflow": {"airflow", "model"},
    "compare": {"compare", "model"},
    "report": {"report", "model"},
    "model": set(),
    "__init__": set(),
}
"""By layer, the layers that it may import; the plugin side and what settings and versions are read from count as one."""
HEAVY = ("airflow", "pyfakefs", "time_machine", "hypothesis", "freezegun", "sqlalchemy")


def layer_of(module: str) -> str:
    """The layer of a module of ours, by its dotted name below the package."""
    first = module.partition(".")[0] or "__init__"
    if first in STUDY_SIDE:
        return "study"
    return "plugin" if first in PLUGIN_SIDE else first


def modules() -> dict[str, Path]:
    """Our modules, by dotted name."""
    return {
        ".".join((PACKAGE, *path.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(FOLDER.rglob("*.py"))
    }


def imports(module: str, path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere, of packages the submodules that it takes from them."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in modules() else source


def broken(module: str, imported: str) -> bool:
    """Whether the import goes up, or past a layer's fence."""
    root, _, rest = imported.partition(".")
    layer = layer_of(module.removeprefix(PACKAGE).lstrip("."))
    if root == "airflow":
        return layer != "airflow"
    if root in ("pytest", "_pytest"):
        return layer != "plugin" or root == "_pytest"
    return root == PACKAGE and layer_of(rest) not in BELOW[layer]


def test_imports_go_down() -> None:
    assert [
        f"{module} imports {imported}"
        for module, path in modules().items()
        for imported in imports(module, path)
        if broken(module, imported)
    ] == []


def test_the_rules_hold_something() -> None:
    assert broken("pytest_rerunsafe.world.files", "pytest_rerunsafe.explore.engine")
    assert broken("pytest_rerunsafe.report.text", "pytest_rerunsafe.compare.rules")
    assert broken("pytest_rerunsafe.explore.engine", "airflow.sdk")
    assert broken("pytest_rerunsafe.check", "pytest")
    assert "pytest_rerunsafe.explore.engine" in set(
        imports("pytest_rerunsafe.explore.worker", FOLDER / "explore" / "worker.py")
    )


def test_each_module_says_what_lives_in_it() -> None:
    assert [
        name for name, path in modules().items() if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []


LOADED = f"""
import sys
def told():
    print("heavy:", sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r})))
"""


def heavy(*lines: str, folder: Path) -> str:
    """What a new process says it has imported of what is slow to import, after the lines."""
    code = "\n".join((LOADED, *lines, "told()"))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    return next((line for line in done.stdout.splitlines() if line.startswith("heavy:")), done.stderr)


@pytest.mark.parametrize("module", ["plugin", "check", "settings"])
def test_importing_the_plugin_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    assert heavy(f"import pytest_rerunsafe.{module}", folder=tmp_path) == "heavy: []"


@pytest.mark.parametrize("options", [["-p", "no:rerunsafe"], []])
def test_a_run_without_the_flag_imports_nothing_heavy(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a_dag.py").write_text("from airflow.sdk import DAG\n")
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    # Some of what is heavy is a plugin of pytest's by itself.
    others = [f"no:{name}" for name in ("fakefs", "time_machine", "hypothesispytest")]
    arguments = [
        *(word for name in others for word in ("-p", name)),
        "-p",
        "no:cacheprovider",
        "-q",
        *options,
    ]
    result = heavy("import pytest", f"assert pytest.main({arguments!r}) == 0", folder=tmp_path)
    assert result == "heavy: []"
