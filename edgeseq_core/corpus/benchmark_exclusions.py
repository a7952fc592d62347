"""Sources of public benchmarks' dev and test sets, which no pretraining pair may contain.

Only truncated hashes are shipped: they name no word and fit in a few hundred kB.
Build the file again with ``python -m edgeseq_core.corpus.benchmark_exclusions FOLDER``, where
FOLDER holds SIGMORPHON 2021 task 1 (``*_dev.tsv``, ``*_test.tsv``) and histnorm
(``*.dev.txt``, ``*.test.txt``) at any depth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from edgeseq_core.corpus.held_out import fold, md5

HASH_FILE = Path(__file__).with_name("benchmark_sources.bin")
HASH_BYTES = 8
PATTERNS = ("*_dev.tsv", "*_test.tsv", "*.dev.txt", "*.test.txt")


def short_hash(text: str) -> bytes:
    """Return the first 8 bytes of the MD5 of the folded ``text``.

    >>> short_hash("Pão!") == short_hash("pão")
    True
    """
    return md5(text)[:HASH_BYTES]


def pack(sources: Iterable[str]) -> bytes:
    """Return the sorted short hashes of ``sources``, each once, end to end."""
    return b"".join(sorted({short_hash(source) for source in sources if fold(source)}))


@lru_cache(maxsize=1)
def _hashes() -> frozenset[bytes]:
    data = HASH_FILE.read_bytes()
    return frozenset(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def is_benchmark_source(text: str) -> bool:
    """Return whether ``text``, folded, is a source of a dev or test set."""
    return short_hash(text) in _hashes()


def sources_in(folder: Path) -> Iterable[str]:
    """Yield the first column of every dev and test file below ``folder``."""
    for pattern in PATTERNS:
        for path in sorted(folder.rglob(pattern)):
            for line in path.read_text("utf-8").splitlines():
                yield line.partition("\t")[0]


def main() -> None:
    """Write the hash file from the folder named on the command line."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("usage: python -m edgeseq_core.corpus.benchmark_exclusions FOLDER")
    data = pack(sources_in(Path(sys.argv[1])))
    if not data:
        raise SystemExit(f"no dev or test files below {sys.argv[1]}; nothing was written")
    HASH_FILE.write_bytes(data)


if __name__ == "__main__":
    main()
