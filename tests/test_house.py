"""The house's own rules: imports only go down, and the small rooms stay light."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LADDER = ("automate", "studies", "search_spaces", "trainers")
TORCH_FREE = (
    "trainers/config.py",
    "trainers/own.py",
    "trainers/places.py",
    "trainers/catalog.py",
    "trainers/schemes.py",
    "trainers/reports.py",
)
NO_NAMES = {"utils", "common", "helpers", "base", "manager", "engine", "registry"}
ONLY_RAY = "studies/cluster.py", "studies/joining.py"


def modules() -> list[Path]:
    return sorted(path for room in LADDER for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module named in an import statement of a file, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path):
    room = path.relative_to(ROOT).parts[0]
    above = LADDER[: LADDER.index(room)]
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & set(above), f"{room} imports from above"
    assert "tests" not in tops


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_stay_in_their_rooms(path):
    room = path.relative_to(ROOT).parts[0]
    name = str(path.relative_to(ROOT))
    tops = {module.split(".")[0] for module in imported(path)}
    if room == "trainers":
        assert not tops & {"optuna", "ray", "cyclopts"}
    if name in TORCH_FREE:
        assert not tops & {"torch", "torchvision", "numpy"}
    if name not in ONLY_RAY:
        assert "ray" not in tops, f"only {' and '.join(ONLY_RAY)} import ray"
    assert path.stem not in NO_NAMES


def test_every_module_is_named_in_the_architecture():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not path.stem.startswith("__")
        and path.parent.name != "search_spaces"  # there the folder is the list
        and f"`{path.stem}`" not in text
    ]
    assert not missing
