"""The bench on disk: what is finished stays, what something else made is refused, and it makes a page."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from edgeseq_core.corpus.streams import Size
from edgeseq_core.errors import ConfigError
from edgeseq_core.evaluate.bench_folder import BenchFolder, CellKey
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.measures import Check
from edgeseq_core.evaluate.quality import Quality
from edgeseq_core.evaluate.report import write_report
from tests.corpus.need import need

SIZE = Size(pairs=40, questions=5)
KEY = CellKey("date-order", "er", 1)


def cell(method: str, seed: int, *, online: bool = True) -> Cell:
    """A cell on the dates whose order flips, as if it had run."""
    rows = [[Quality(80, 80), Quality(10, 10)], [Quality(20, 20), Quality(70 + seed, 70)]]
    return Cell(
        "an identity",
        "date-order",
        method,
        seed,
        untrained=[Quality(0, 0), Quality(0, 0)],
        matrix=rows if online else rows[-1:],
        checks=[Check(1, 2, [5.0, 0.0])] if online else [],
        hits="01" * 20 if online else "",
        pairs=40,
        learning_cpu_s=2.0,
        model_bytes=1024,
        buffer_bytes=512,
        peak_resident_bytes=1 << 20,
    )


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_a_stream_is_made_once_and_of_one_size(tmp_path: Path) -> None:
    folder = BenchFolder(tmp_path)
    made = folder.stream("date-order", SIZE, tmp_path, 8)
    assert [len(phase.train) for phase in made.phases] == [20, 20]
    assert (
        folder.stream("date-order", SIZE, tmp_path, 8)
        == folder.kept_stream("date-order", 1)
        == made
    )
    with pytest.raises(ConfigError, match="was made with other sizes: name another --out"):
        folder.stream("date-order", Size(pairs=50, questions=5), tmp_path, 8)


def test_a_finished_cell_is_there_and_one_of_another_bench_is_refused(tmp_path: Path) -> None:
    folder = BenchFolder(tmp_path)
    assert folder.cell(KEY, "an identity") is None
    folder.keep(KEY, cell("er", 1))
    assert folder.cell(KEY, "an identity") == cell("er", 1)
    assert folder.cells() == [cell("er", 1)]
    with pytest.raises(ConfigError, match="another base, other settings or other data"):
        folder.cell(KEY, "another identity")
    next(tmp_path.glob("cells/*/*.json")).write_text('{"stream": 3}')
    with pytest.raises(ConfigError, match="is no cell of this version"):
        folder.cell(KEY, "an identity")


def test_a_report_without_cells_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished cell"):
        write_report(BenchFolder(tmp_path))


def test_the_page_stands_alone_and_the_tables_hold_its_numbers(tmp_path: Path) -> None:
    need("matplotlib", "scipy")
    folder = BenchFolder(tmp_path)
    for seed in (1, 2):
        folder.stream("date-order", Size(pairs=40, questions=5, seed=seed), tmp_path, 8)
        folder.keep(KEY._replace(seed=seed), cell("er", seed))
    folder.keep(CellKey("date-order", "joint", 1), cell("joint", 1, online=False))
    page, measures, matrix, curves = write_report(folder)
    text = page.read_text()
    assert text.count("<svg") == 3
    assert re.search(r'(src|href)="(?!#)', text) is None  # nothing is loaded
    rows = {row["method"]: row for row in table(measures)}
    assert float(rows["er"]["average accuracy, %"]) == pytest.approx((20 + 71.5) / 2)
    assert float(rows["er"]["backward transfer"]) == -60
    assert float(rows["er"]["worst drop"]) == 75
    assert float(rows["er"]["old regime, %"]) == 20
    assert float(rows["er"]["CPU-s / 1,000 pairs"]) == 50
    assert rows["joint"]["backward transfer"] == ""
    of_matrix = table(matrix)
    assert (
        len(of_matrix) == 2 * 3 * 2 + 2 * 2
    )  # two seeds of two rows and the untrained; the last alone
    last = [
        r for r in of_matrix if (r["method"], r["seed"], r["after"]) == ("er", "2", "day-first")
    ]
    assert [row["exact %"] for row in last] == ["20.0", "72.0"]
    assert len(table(curves)) == 0  # fewer pairs than a point is made of
