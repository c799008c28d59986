"""The rooms of the package: who may import whom, and how long a file may be."""

import ast
from pathlib import Path

import pytest

import skad

PACKAGE = Path(skad.__file__).parent
MAX_LINES = 400

# A room imports from those that stand in a line above its own.
FLOORS = [
    {"common"},
    {"images", "threshold", "metrics", "datasets", "overlays", "testing"},
    {"network"},
    {"scoring"},
    {"detectors"},
    {"model_io", "displays"},
    {"benchmark"},
    {"cli", "legacy"},
]
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor}
SOURCES = {
    str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))
}


def imported_rooms(source: str) -> set[str]:
    """Rooms that a source imports from, wherever in the file."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    split = [name.split(".") for name in names if name.startswith("skad.")]
    return {parts[1] for parts in split} & FLOOR.keys()


def wrong_rooms(room: str, source: str) -> list[str]:
    """Rooms that a source in this room must not import."""
    others = imported_rooms(source) - {room}
    return sorted(other for other in others if FLOOR[other] >= FLOOR[room])


def test_every_room_has_a_floor():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(FLOOR)


def test_rooms_import_only_from_floors_below():
    wrong = {
        name: wrong_rooms(path.relative_to(PACKAGE).parts[0], path.read_text())
        for name, path in SOURCES.items()
        if path.parent != PACKAGE
    }
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("scoring", "from skad.network.model import PatchAutoencoder", []),
        ("network", "from skad.scoring import tiles", ["scoring"]),
        ("images", "def f():\n    import skad.detectors.patch", ["detectors"]),
        ("metrics", "from skad import scoring", ["scoring"]),
        ("cli", "from skad import __version__, load", []),
    ],
)
def test_a_wrong_arrow_is_found(room, source, wrong):
    assert wrong_rooms(room, source) == wrong


def test_no_file_is_long():
    n_lines = {name: len(p.read_text().splitlines()) for name, p in SOURCES.items()}
    assert {name: n for name, n in n_lines.items() if n > MAX_LINES} == {}
