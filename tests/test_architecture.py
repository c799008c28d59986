"""The rooms of the package: who may import whom, and how long a file may be."""

import ast
import sys
from pathlib import Path

import pytest
from imported_names import imported_names

import skad

sys.path.append(str(Path(__file__).parents[1] / "docs/benchmarks"))
import walk

PACKAGE = Path(skad.__file__).parent
MAX_LINES = 349  # of a file
MAX_BODY = 49  # lines of a function, without its docstring

# A room imports from those that stand in a line above its own.
FLOORS = [
    {"common"},
    {"images", "threshold", "metrics", "datasets", "testing", "encoders"},
    {"overlays"},
    {"inspection"},
    {"network", "runtime"},
    {"scoring"},
    {"detectors"},
    {"explanations"},
    {"model_io", "displays", "monitor"},
    {"benchmark", "report", "export"},
    {"audit", "distributed", "serve"},
    {"cli", "legacy"},
]
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor}
SOURCES = {
    str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))
}
ABOVE_ALL = {"__init__", "__main__"}  # modules at the top that are no rooms


def room_of(name: str) -> str:
    """Room of a file: the package that it lies in, or the module that it is."""
    return Path(name).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    """Rooms that a source imports from, wherever in the file."""
    return {name.split(".")[1] for name in imported_names(source)} & FLOOR.keys()


def wrong_rooms(room: str, source: str) -> list[str]:
    """Rooms that a source in this room must not import."""
    others = imported_rooms(source) - {room}
    return sorted(other for other in others if FLOOR[other] >= FLOOR[room])


def test_every_room_has_a_floor():
    assert {room_of(name) for name in SOURCES} - ABOVE_ALL == set(FLOOR)


def test_rooms_import_only_from_floors_below():
    wrong = {
        name: wrong_rooms(room_of(name), path.read_text())
        for name, path in SOURCES.items()
        if room_of(name) not in ABOVE_ALL
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


# Files of skad, and lines of function bodies, that a reader follows.
MOST_TO_READ = {"predict": (10, 280), "fit": (20, 1300)}


def test_a_call_is_short_to_follow():
    found = {name: (len(one), walk.n_lines(one)) for name, one in walk.walks().items()}
    for name, (files, lines) in MOST_TO_READ.items():
        assert found[name][0] <= files, found
        assert found[name][1] <= lines, found


def test_no_file_is_long():
    n_lines = {name: len(p.read_text().splitlines()) for name, p in SOURCES.items()}
    assert {name: n for name, n in n_lines.items() if n > MAX_LINES} == {}


def test_no_function_is_long():
    long = []
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and body[-1].end_lineno - body[0].lineno >= MAX_BODY:
                    long.append(f"{name}: {node.name}")
    assert long == []
