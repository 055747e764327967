"""The house stays as drawn in CONTRIBUTING: direction of imports, lazy names, one list of packages, one list of codes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import medrecon
from medrecon.core.codes import EXPLANATIONS

ROOT = Path(medrecon.__file__).parents[1]
PACKAGE = ROOT / "medrecon"

#: Each floor may import the floors before it, never its neighbours on the same floor.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"core"}),
    frozenset({"safety"}),
    frozenset({"preprocess"}),
    frozenset({"readers", "writers", "operators", "networks", "surface"}),
    frozenset({"methods", "quality"}),
    frozenset({"config", "device"}),
    frozenset({"result"}),
    frozenset({"steps"}),
    frozenset({"pipeline", "simulate", "simulate_projections"}),
    frozenset({"training", "bundle"}),
    frozenset({"run", "preview", "export"}),
    frozenset({"preview_projections"}),
    frozenset({"console"}),
    frozenset({"batch", "hospital", "transforms"}),
    frozenset({"cli"}),
)


def floor_of(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def imports_of(source: str) -> Iterator[str]:
    """Yield the part of medrecon that each import names; imports for type checking alone do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "medrecon" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("medrecon."))


def wrong_imports(part: str, source: str) -> list[str]:
    return [other for other in imports_of(source) if other != part and floor_of(other) >= floor_of(part)]


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem not in {"__init__", "__main__"})


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert wrong_imports(part, path.read_text(encoding="utf-8")) == []


def test_the_floor_check_fails_on_a_reader_that_imports_a_writer() -> None:
    assert wrong_imports("readers", "from medrecon.writers import nifti") == ["writers"]
    assert wrong_imports("core", "import medrecon.safety.atomic") == ["safety"]


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


HEAVY = {"torch", "monai", "SimpleITK", "vtkmodules", "vtk", "qtpy", "PySide6", "napari", "distributed"}


@pytest.mark.parametrize(
    "statement",
    [
        "import medrecon",
        "import medrecon.cli",
        "from medrecon.config import load_config; load_config('fast')",
        "from medrecon import methods",
    ],
)
def test_no_heavy_library_is_loaded_before_it_is_needed(statement: str) -> None:
    assert loaded_after(statement) & HEAVY == set()


def test_the_check_for_heavy_libraries_sees_torch() -> None:
    assert "torch" in loaded_after("import medrecon.operators.linear")


def test_every_public_name_can_be_loaded() -> None:
    for name in medrecon.__all__:
        assert getattr(medrecon, name) is not None
    with pytest.raises(AttributeError):
        _ = medrecon.no_such_name


def test_the_wheel_holds_every_package() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")} | {"medrecon.configs"}
    plugin = {
        ".".join(path.parent.relative_to(ROOT / "napari_plugin").parts) for path in (ROOT / "napari_plugin").rglob("__init__.py")
    }
    assert listed == there | plugin


CODE = re.compile(
    r'"((?:ARG|BATCH|BND|CFG|CMD|CMP|COV|DCM|DEV|FIELD|GRID|HU|IMG|INP|LED|MDL|MEM|NAP|NET|NII|OUT|PRJ|PROFILE|RES|RUN|SCAN|SRF|TRF|TRN|TRU|MET|ID|SLC|PROV|US|VOL|XRAY|ZERO|ZIP)-[A-Z0-9-]+)"'
)


def codes_used() -> set[str]:
    plugin = (ROOT / "napari_plugin").rglob("*.py")
    texts = (path.read_text(encoding="utf-8") for path in [*modules(), *plugin] if path.name != "codes.py")
    return {code for text in texts for code in CODE.findall(text)}


def test_every_code_is_explained_and_every_explanation_is_used() -> None:
    assert codes_used() == set(EXPLANATIONS)


def test_explanations_are_sorted() -> None:
    assert list(EXPLANATIONS) == sorted(EXPLANATIONS)


FLOOR_VERSIONS = {"torch": (2, 10), "monai": (1, 6), "pydicom": (3, 0, 2), "PyYAML": (5, 4), "distributed": (2024, 8, 3)}


@pytest.mark.parametrize("name", FLOOR_VERSIONS)
def test_no_dependency_is_below_its_security_floor(name: str) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", metadata.version(name))[:3])
    assert version >= FLOOR_VERSIONS[name]


def test_no_core_dependency_is_under_gpl() -> None:
    names = [re.split(r"[<>=\[; ]", line)[0] for line in metadata.requires("medrecon") or [] if "extra ==" not in line]
    for name in names:
        about = metadata.metadata(name)
        words = " ".join([*(about.get_all("License-Expression") or []), *(about.get_all("Classifier") or [])])
        assert not re.search(r"\bA?GPL|Affero|GNU General Public", words), name
