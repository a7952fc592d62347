"""`edgeseq learn` over files of pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseq_core.corpus.held_out import is_held_out
from edgeseq_core.testing.base import write_tiny_base
from tests.cli.conftest import Run


@pytest.mark.parametrize("count", [1, 40])
def test_the_last_line_tells_of_all_pairs(run: Run, tmp_path: Path, count: int) -> None:
    base, file = tmp_path / "base.safetensors", tmp_path / "pairs.tsv"
    write_tiny_base(base)
    words = [
        word for word in (f"word {n}" for n in range(1000)) if count > 1 or not is_held_out(word)
    ]
    file.write_text("".join(f"{word}\t{word}\n" for word in words[:count]))
    ran = run("learn", "words", str(file), "--base", str(base))
    held_out = sum(map(is_held_out, words[:count]))
    assert not ran.code, ran.err
    last = ran.out.splitlines()[-1]
    assert last.startswith(f"{count - held_out} pairs  ")
    assert ("held-out" in last) == bool(held_out)
