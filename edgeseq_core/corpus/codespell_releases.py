"""codespell's list of misspellings as it grew over the years, release by release."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgeseq_core.corpus.base_spelling import single_corrections
from edgeseq_core.corpus.streams import Pair
from edgeseq_core.errors import MissingDataError

FOLDER = "codespell"
RELEASES = ("1.16.0", "2.1.0", "2.3.0", "2.4.3")  # of 2019 to 2026
_DICTIONARY = "codespell_lib/data/dictionary.txt"


def additions(data: Path) -> dict[str, list[Pair]]:
    """Release -> the words it added, each with its one correction; in the dictionary's order.

    Reads the releases' wheels in ``FOLDER`` of the data folder; raises MissingDataError when one is missing.
    """
    seen: set[str] = set()
    added = {}
    for release in RELEASES:
        pairs = single_corrections(_dictionary(data, release))
        added[release] = [pair for pair in pairs if pair[0] not in seen]
        seen.update(wrong for wrong, _ in pairs)
    return added


def _dictionary(data: Path, release: str) -> str:
    wheel = data / FOLDER / f"codespell-{release}-py3-none-any.whl"
    try:
        with zipfile.ZipFile(wheel) as files:
            return files.read(_DICTIONARY).decode()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise MissingDataError(
            f"{wheel} cannot be read ({type(error).__name__}): run `edgeseq bench fetch`, or "
            f"`pip download --no-deps codespell=={release}` in its folder"
        ) from None
