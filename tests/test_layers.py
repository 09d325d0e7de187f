"""The package has layers: imports go only to lower layers, and there are no import cycles."""

import ast
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "gald"
# From the bottom layer to the top: a package imports only packages of earlier lines.
LAYERS = """
install
command_line device progress painting
errors config
options
run
cli model optimizer scheduler trainer
completion doctor loss data profiling
inference
metrics
evaluation
task prediction convert
callbacks comparison viz export
sweep report
logger
training
probe
__init__
__main__
"""


def imports():
    """Pairs (importing file, imported file), each as the parts of its path."""
    for path in SOURCE.rglob("*.py"):
        importer = path.relative_to(SOURCE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gald":
                for alias in node.names:
                    yield importer, file_of(f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Import):
                yield from ((importer, file_of(a.name)) for a in node.names if a.name[:4] == "gald")


def file_of(name):
    """The file that defines a dotted name, as the parts of its path."""
    parts = []
    for part in name.split(".")[1:]:
        parts.append(part)
        if not SOURCE.joinpath(*parts).is_dir():
            break
    if SOURCE.joinpath(*parts).with_suffix(".py").is_file():
        return tuple(parts)
    return (*parts[:-1], "__init__")


def test_packages_import_only_packages_of_lower_layers():
    level = {package: n for n, line in enumerate(LAYERS.split("\n")) for package in line.split()}
    packages = {path.stem for path in SOURCE.iterdir()} - {"__pycache__", "py"}
    assert packages == set(level)
    for source, target in imports():
        lower = level[target[0]] < level[source[0]]
        assert source[0] == target[0] or lower, (source, target)


def test_no_folder_has_an_import_cycle():
    uses = defaultdict(lambda: defaultdict(set))
    for source, target in imports():
        pairs = enumerate(zip(source, target, strict=False))
        depth = next((i for i, (a, b) in pairs if a != b), None)
        if depth is not None:
            uses[source[:depth]][source[depth]].add(target[depth])
    for graph in uses.values():
        list(TopologicalSorter(graph).static_order())  # raises a CycleError that names the cycle


def test_few_files_are_at_the_top_and_none_hides_a_module_of_python():
    assert len(list(SOURCE.glob("*.py"))) <= 12
    names = {path.stem for path in SOURCE.rglob("*.py")}
    assert len(names) > 100 and not names & sys.stdlib_module_names
