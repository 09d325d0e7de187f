"""docs/modules.md matches the code."""

from pathlib import Path

import pytest

from gald.config import CONF_DIR
from gald.profiling import modules_table as module
from gald.profiling.modules_table import measurements, modules_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "modules.md"


def rows(page):
    """The cells of each row, by option."""
    lines = [line for line in page.splitlines() if line.startswith("| [`")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].partition("(../conf/model/")[2].removesuffix(".yaml)"): row for row in cells}


@pytest.fixture(scope="module")
def current():
    return rows(modules_table())


def test_every_row_of_the_document_is_current(current):
    """A new module needs no row yet, but an existing row must be correct."""
    for option, row in rows(DOCUMENT.read_text()).items():
        assert current[option] == row[:-2], f"{option} has changed; run make modules"


def test_tables_come_before_the_explanation_of_their_columns():
    page = DOCUMENT.read_text()
    assert page.startswith(module.INTRODUCTION) and page.endswith(module.MEASURED)
    assert len(module.INTRODUCTION.splitlines()) < 6


def test_every_option_has_a_row(current):
    files = {
        f"{slot}/{path.stem}"
        for slot in ("ga", "ld")
        for path in (CONF_DIR / "model" / slot).glob("*")
    }
    assert current.keys() == files


def test_rows_agree_with_counts_by_hand(current):
    what, formula, paper, reads, params, gmacs = current["ga/nonlocal"][1:]
    assert formula == "`out = x + BN(W softmax(q k^T / sqrt(key_channels)) v)`"
    bare = current["ga/nonlocal_bare"][2]
    assert bare == formula.replace("x + ", "")
    assert what == "Non-local block: every position attends to every position"
    assert paper == "[Non-local Neural Networks](https://arxiv.org/abs/1711.07971)"
    assert reads == "x"
    cells = 97 * 97
    by_hand = cells * 4 * 512 * 256 + 2 * cells * cells * 256  # four projections, two products
    assert float(gmacs) == pytest.approx(by_hand / 1e9, abs=0.001)
    assert int(params.replace(",", "")) == pytest.approx(4 * 512 * 256, rel=0.01)
    assert current["ld/none"][4:] == ["context, x", "no", "0", "0.000"]
    assert current["ld/const"][5] == "yes"
    assert current["ld/lowlevel"][4] == "context, x, maps"
    assert current["ga/cgnl_stride2"][3].count("https://") == 2


@pytest.mark.integration
def test_only_rows_that_changed_are_measured_again(monkeypatch):
    page = DOCUMENT.read_text()
    (old,) = [line for line in page.splitlines() if line.startswith("| [`psp`]")]
    changed = page.replace(old, old.replace(" | ", " | ", 1).replace("`psp`", "`psp_old`"))
    monkeypatch.setattr(module, "_measure", lambda *_: ["12", "34"])
    renewed = rows(modules_table(measurements(changed)))
    assert renewed["ga/psp"][-2:] == ["12", "34"]
    known = rows(page)
    assert all(renewed[key] == row for key, row in known.items() if key != "ga/psp")
