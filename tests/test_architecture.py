"""Tests that read the sources: who imports whom, and how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skad

PACKAGE = Path(skad.__file__).parent
SOURCES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
MODULES = [name for name in SOURCES if name != "__init__"]
MAX_LINES = 400

# A module imports only from levels below its own. A new file needs a line here.
LEVELS = {
    # entry points: nobody imports them
    "__main__": 10,
    "_command_benchmark": 10,
    "_command_calibrate": 10,
    "_command_convert": 10,
    "_command_demo": 10,
    "_command_fit": 10,
    "_command_info": 10,
    "_command_score": 10,
    "legacy": 10,
    # whole jobs
    "_benchmark": 9,
    "_demo": 9,
    # know a fitted detector
    "_benchmark_table": 8,
    "_persistence": 8,
    "_evaluation": 7,
    "_kinds": 7,
    "_mvtec": 7,
    "_scoring": 7,
    "displays": 7,
    "_agreement": 6,
    "_dense_detector": 6,
    "_detector": 6,
    "_dense_training": 5,
    "_image_detector": 5,
    "_dense_maps": 4,
    "_fitted_attributes": 4,
    "_pictures": 6,
    "_score_table": 4,
    "_learning": 4,
    "_older_states": 4,
    "metrics": 4,
    "_fitted": 3,
    "_map_fitting": 3,
    "_header": 3,
    "_html": 3,
    "_inspection": 3,
    "_several_sizes": 3,
    "_legacy_files": 5,
    "_scorers": 3,
    "_training": 3,
    "images": 5,
    "_commands": 9,
    "_defects": 2,
    "_drift": 2,
    "_division": 2,
    "_keras": 4,
    "_maps": 2,
    "_roi": 4,
    "_inputs": 2,
    "_finding": 4,
    "_survey": 4,
    "_as_fitted": 5,
    "_progress": 2,
    "_threshold": 2,
    "_arguments": 1,
    "_bars": 1,
    "_checkpoint": 2,
    "_decoding": 3,
    "_tiff": 2,
    "_jpeg": 1,
    "_loading": 2,
    "_png": 1,
    "_resizing": 1,
    "_expectation": 1,
    "_folding": 1,
    "_gaussians": 1,
    "_halos": 1,
    "_groups": 1,
    "_layout": 1,
    "_labels": 1,
    "_localization": 1,
    "_near_copies": 1,
    "_locks": 1,
    "_optimizer": 1,
    "_parameters": 1,
    "_prefetch": 1,
    "_regions": 1,
    "_preparation": 1,
    "_windows": 1,
    "datasets": 1,
    "overlays": 2,
    "testing": 1,
    # import nothing of skad's
    "_dense_network": 0,
    "_drawing": 0,
    "_files": 1,
    "_formats": 0,
    "_fusion": 0,
    "_image_checks": 0,
    "_label_table": 0,
    "_masked": 0,
    "_masks": 0,
    "_messages": 0,
    "_networks": 0,
    "_options": 0,
    "_part_files": 0,
    "_pickles": 0,
    "_planting": 0,
    "_promise": 0,
    "_random": 0,
    "_real_numbers": 0,
    "_sources": 0,
    "_streams": 0,
    "_threads": 0,
    "_tiles": 0,
    "_torch_state": 0,
    "_warnings": 0,
    "_map_strips": 0,
    "_whole_numbers": 0,
}
MAY_IMPORT_TORCH = {
    "_agreement",
    "_checkpoint",
    "_defects",
    "_dense_maps",
    "_dense_network",
    "_dense_training",
    "_expectation",
    "_fitted",
    "_folding",
    "_fusion",
    "_gaussians",
    "_halos",
    "_learning",
    "_map_fitting",
    "_maps",
    "_networks",
    "_optimizer",
    "_parameters",
    "_preparation",
    "_random",
    "_several_sizes",
    "_threads",
    "_tiles",
    "_torch_state",
    "_training",
    "_windows",
}
# Inside functions alone: these are installed only by those who want the feature.
MAY_IMPORT_OPTIONAL = {"matplotlib": {"_drawing", "displays"}, "h5py": {"_keras"}}


def imported_names(node):
    """Dotted names that one import statement brings in; relative ones as skad's."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = ".".join(filter(None, ["skad" if node.level else "", node.module]))
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


def outside_packages(node):
    """Top-level packages that one import statement loads."""
    names = imported_names(node)
    # safetensors itself does without torch, safetensors.torch does not.
    return {
        "torch" if name.startswith("safetensors.torch") else name.split(".")[0]
        for name in names
    }


def own_modules(tree):
    """Modules of skad's that a file uses, public names followed to their module."""
    names = [name for node in ast.walk(tree) for name in imported_names(node)]
    names += [
        f"skad.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "skad"
    ]
    used = {name.split(".")[1] for name in names if name.startswith("skad.")}
    return {skad._MODULE_OF.get(name, name) for name in used} - {"__version__"}


def upward_imports(module, tree):
    return sorted(
        name
        for name in own_modules(tree)
        if LEVELS.get(name, float("inf")) >= LEVELS[module]
    )


def statements_run_on_import(tree):
    """Every node of a file but those inside functions and for type checkers only."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def parse(module):
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def test_every_module_has_a_level():
    unknown = sorted(set(MODULES) - set(LEVELS))
    assert not unknown, f"give {unknown} a level in LEVELS of this file"


def test_the_package_is_flat():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert folders == {PACKAGE}


@pytest.mark.parametrize("module", sorted(set(MODULES) & set(LEVELS)))
def test_imports_point_downwards(module):
    wrong = upward_imports(module, parse(module))
    assert not wrong, f"{module} (level {LEVELS[module]}) must not import {wrong}"


def test_init_imports_nothing_of_skad():
    assert own_modules(parse("__init__")) == set()


@pytest.mark.parametrize("module", sorted(set(SOURCES) - MAY_IMPORT_TORCH))
def test_torch_is_imported_only_where_it_may_be(module):
    for node in ast.walk(parse(module)):
        assert "torch" not in outside_packages(node), f"{module}.py:{node.lineno}"


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"_warnings"}))
def test_warnings_point_outside_skad(module):
    for node in ast.walk(parse(module)):
        own = isinstance(node, ast.Attribute) and node.attr == "warn"
        assert not own, f"{module}.py:{node.lineno}: use warn of skad._warnings"


@pytest.mark.parametrize("package", MAY_IMPORT_OPTIONAL)
@pytest.mark.parametrize("module", SOURCES)
def test_optional_packages_are_imported_only_inside_functions(module, package):
    tree = parse(module)
    forbidden = (
        statements_run_on_import(tree)
        if module in MAY_IMPORT_OPTIONAL[package]
        else ast.walk(tree)
    )
    for node in forbidden:
        assert package not in outside_packages(node), f"{module}.py:{node.lineno}"


@pytest.mark.parametrize("module", SOURCES)
def test_no_file_is_too_long(module):
    n_lines = len(SOURCES[module].read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES, f"{module}.py has {n_lines} lines"


def test_importing_skad_loads_nothing_heavy():
    program = "import sys, skad; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "skad" in loaded
    heavy = {"torch", "sklearn", "skimage", "numpy", "matplotlib", "PIL", "h5py"}
    assert not heavy & set(loaded)
    assert [name for name in loaded if name.startswith("skad.")] == []


@pytest.mark.parametrize("name", [name for name in dir(skad) if name != "__version__"])
def test_every_public_name_resolves(name):
    value = getattr(skad, name)
    home = skad._MODULE_OF.get(name)
    assert value.__name__ == (name if home else f"skad.{name}")
    if home:
        _, origin = value.__module__.split(".")
        assert origin in {home, *own_modules(parse(home))}


def test_dir_and_all_tell_the_same_names():
    assert set(dir(skad)) == {*skad.__all__, *skad._SUBMODULES}
    assert len(skad.__all__) == len(set(skad.__all__))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'skad' has no attribute 'nope'"):
        _ = skad.nope


# The readers above, read with sources whose answer is known.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from skad._detector import PatchAutoencoderDetector", {"_detector"}),
        ("from skad import PatchAutoencoderDetector", {"_detector"}),
        ("from . import metrics", {"metrics"}),
        ("from .images import read_image", {"images"}),
        ("import skad._maps as maps", {"_maps"}),
        ("import skad\nskad.load('a')", {"_persistence"}),
        ("def f():\n    from skad import images", {"images"}),
        ("from skad import __version__", set()),
        ("import numpy\nfrom torch import nn", set()),
    ],
)
def test_own_modules_are_found(source, expected):
    assert own_modules(ast.parse(source)) == expected


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("_detector", "from skad import images, legacy", ["legacy"]),
        ("_scorers", "from skad.metrics import pro_curve", ["metrics"]),
        ("images", "from skad._decoding import read_image", []),
        ("_decoding", "from skad.images import find_images", ["images"]),
        ("displays", "from skad import _persistence, metrics", ["_persistence"]),
        ("legacy", "import skad.unheard_of", ["unheard_of"]),
        ("__main__", "from skad import load, images, displays", []),
    ],
)
def test_upward_imports_are_found(module, source, wrong):
    assert upward_imports(module, ast.parse(source)) == wrong


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn.functional as F", {"torch"}),
        ("from torch import nn", {"torch"}),
        ("from safetensors.torch import save", {"torch"}),
        ("from safetensors import torch", {"torch"}),
        ("from safetensors.numpy import save", {"safetensors"}),
        ("import matplotlib.pyplot as plt", {"matplotlib"}),
        ("from skad import _maps", {"skad"}),
    ],
)
def test_outside_packages_are_found(source, found):
    (statement,) = ast.parse(source).body
    assert outside_packages(statement) == found


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("import matplotlib", True),
        ("if True:\n    import matplotlib", True),
        ("class A:\n    import matplotlib", True),
        ("if TYPE_CHECKING:\n    import matplotlib", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import matplotlib", True),
        ("def f():\n    import matplotlib", False),
        ("class A:\n    def f(self):\n        import matplotlib", False),
    ],
)
def test_what_runs_on_import_is_told_from_what_does_not(source, is_found):
    nodes = statements_run_on_import(ast.parse(source))
    assert any("matplotlib" in outside_packages(node) for node in nodes) is is_found
