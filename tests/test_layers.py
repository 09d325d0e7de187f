"""The package is a tree of rooms: imports go downwards, and nowhere in a circle."""

import ast
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "gald"
# From the ground up: a room imports only rooms of the lines below it.
LAYERS = """
errors config device progress painting
run
cli model optimizer scheduler trainer
doctor loss data profiling
inference
metrics
evaluation
task prediction convert
callbacks comparison viz export
sweep
logger train
__init__
"""


def imports():
    """Pairs of files, as parts of their paths, the first of which imports the second."""
    for path in SOURCE.rglob("*.py"):
        here = path.relative_to(SOURCE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gald":
                for alias in node.names:
                    yield here, place_of(f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Import):
                yield from ((here, place_of(a.name)) for a in node.names if a.name[:4] == "gald")


def place_of(name):
    """The file that a dotted name lies in, as parts of its path."""
    parts = []
    for part in name.split(".")[1:]:
        parts.append(part)
        if not SOURCE.joinpath(*parts).is_dir():
            break
    if SOURCE.joinpath(*parts).with_suffix(".py").is_file():
        return tuple(parts)
    return (*parts[:-1], "__init__")


def test_rooms_import_only_rooms_below_them():
    level = {room: n for n, line in enumerate(LAYERS.split("\n")) for room in line.split()}
    rooms = {path.stem for path in SOURCE.iterdir()} - {"__pycache__", "py"}
    assert rooms == set(level)
    for here, there in imports():
        assert here[0] == there[0] or level[there[0]] < level[here[0]], (here, there)


def test_no_folder_has_a_circle_of_files_or_folders():
    uses = defaultdict(lambda: defaultdict(set))
    for here, there in imports():
        depth = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
        if depth is not None:
            uses[here[:depth]][here[depth]].add(there[depth])
    for graph in uses.values():
        list(TopologicalSorter(graph).static_order())  # raises a CycleError that names the circle


def test_few_files_lie_at_the_top_and_none_hides_a_module_of_python():
    assert len(list(SOURCE.glob("*.py"))) <= 12
    names = {path.stem for path in SOURCE.rglob("*.py")}
    assert len(names) > 100 and not names & sys.stdlib_module_names
