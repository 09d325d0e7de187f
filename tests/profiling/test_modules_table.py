"""docs/modules.md says what the code says."""

import difflib
from pathlib import Path

import pytest

from gald.config import CONF_DIR
from gald.profiling.modules_table import modules_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "modules.md"


@pytest.fixture(scope="module")
def rows():
    """The cells of each option's row, as generated now."""
    lines = [line for line in modules_table(measured=False).splitlines() if line.startswith("| [`")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].partition("(../conf/model/")[2].removesuffix(".yaml)"): row[1:] for row in cells}


def without_measurements(line):
    return " | ".join(line.split(" | ")[:-2]) + " |" if line.startswith("| ") else line


def test_document_is_current():
    current = modules_table(measured=False).splitlines()
    written = [without_measurements(line) for line in DOCUMENT.read_text().splitlines()]
    changes = "\n".join(difflib.unified_diff(written, current, lineterm="", n=0))
    assert not changes, f"run python -m gald.profiling.modules_table > docs/modules.md\n{changes}"


def test_every_option_has_a_row(rows):
    files = {
        f"{slot}/{path.stem}"
        for slot in ("ga", "ld")
        for path in (CONF_DIR / "model" / slot).glob("*")
    }
    assert rows.keys() == files


def test_rows_agree_with_counts_by_hand(rows):
    what, formula, paper, reads, params, gmacs = rows["ga/nonlocal"]
    assert formula == "`out = x + BN(W softmax(q k^T / sqrt(key_channels)) v)`"
    assert what == "Non-local block: every position attends to every position"
    assert paper == "[Non-local Neural Networks](https://arxiv.org/abs/1711.07971)"
    assert reads == "x"
    cells = 97 * 97
    by_hand = cells * 4 * 512 * 256 + 2 * cells * cells * 256  # four projections, two products
    assert float(gmacs) == pytest.approx(by_hand / 1e9, abs=0.001)
    assert int(params.replace(",", "")) == pytest.approx(4 * 512 * 256, rel=0.01)
    assert rows["ld/none"][3:] == ["context, x", "0", "0.000"]
    assert rows["ld/lowlevel"][3] == "context, x, maps"
    assert rows["ga/cgnl_stride2"][2].count("https://") == 2
