"""Old words as they were written, with their modern spelling: running text, a word a line.

Source: Bollmann 2019 (github.com/coastalcph/histnorm), whose folders ``portuguese``, ``slovene`` and
``spanish`` are read from ``histnorm`` in the data folder.  As there, texts are in lower case and tokens
without a letter or figure are left out; the dev files are asked, the test files left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgeseq_core.corpus.examples import MAX_SOURCE, MAX_TARGET
from edgeseq_core.corpus.streams import Pair
from edgeseq_core.errors import MissingDataError

FOLDER = "histnorm"


def tokens(data: Path, name: str, part: Literal["train", "dev"]) -> list[Pair]:
    """The words of a file in the order of the text; raises MissingDataError when it is not there.

    ``name`` is a folder and a file without its ending, e.g. ``slovene/slovene-goo300k-gaj``.
    """
    path = data / FOLDER / f"{name}.{part}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        raise MissingDataError(
            f"{path} is not there: copy the folder `datasets/historical` of github.com/coastalcph/histnorm "
            f"to {data / FOLDER}"
        ) from None
    rows = (line.lower().split("\t") for line in lines)
    return [(row[0], row[1]) for row in rows if len(row) == 2 and _is_word(*row)]


def _is_word(old: str, modern: str) -> bool:
    fits = 0 < len(old) <= MAX_SOURCE and 0 < len(modern) <= MAX_TARGET
    return fits and any(map(str.isalnum, old))
