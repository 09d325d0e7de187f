"""The Markdown page of benchmarks/gpu_day.py, from its JSON.

python benchmarks/gpu_page.py VISIT_1/gpu_day.json VISIT_2/gpu_day.json > page.md
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def gpu_page(content: dict[str, Any]) -> str:
    """Return the page: one section per part, one table per list of results."""
    lines = ["# A visit to a GPU", ""]
    for parts, about in content.get("machine", {}).items():
        lines += [f"Parts {parts}:", "", *_items(about), ""]
    for part, results in content.items():
        if part == "machine":
            continue
        lines += [f"## {part}", ""]
        for name, value in results.items():
            lines += [f"**{name}**", "", *_any(value), ""]
    return "\n".join(lines)


def _any(value: Any) -> list[str]:
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return _table(value)
    if isinstance(value, dict):
        return _items(value)
    return ["```text", str(value), "```"] if "\n" in str(value) else [_short(value)]


def _items(values: Row) -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"- {key}:", *(f"  - {name}: {_short(v)}" for name, v in value.items())]
        else:
            lines.append(f"- {key}: {_short(value)}")
    return lines


def _table(rows: list[Row]) -> list[str]:
    head = list(dict.fromkeys(key for row in rows for key in row))

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    body = [line(_short(row.get(key, "")) for key in head) for row in rows]
    return [line(head), line("---" for _ in head), *body]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    merged: dict[str, Any] = {}
    for path in map(Path, sys.argv[1:]):
        for part, results in json.loads(path.read_text()).items():
            merged.setdefault(part, {}).update(results)
    print(gpu_page(merged))
