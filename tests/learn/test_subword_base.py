"""The loop on a base with subwords: stored, learnt, served and answered."""

from pathlib import Path

import pytest

from edgeseq_core.learn.offline import learn_pairs
from edgeseq_core.testing.base import CHARACTERS, tiny_base
from edgeseq_core.text.subwords import learn_subwords
from tests.learn.rig import Learner, numbered

TEXTS = [text for pair in numbered(0, 50) for text in pair]


@pytest.mark.parametrize("bands", [(), (300, 360)], ids=["plain", "bands"])
def test_a_task_is_learnt_and_answered(tmp_path: Path, bands: tuple[int, ...]) -> None:
    vocabulary = learn_subwords(TEXTS, CHARACTERS, pieces=30)
    assert len(vocabulary.encode("number 12")) < len("number 12") / 2
    learner = Learner(tiny_base(tmp_path, vocabulary=vocabulary, bands=bands))
    pairs = [(f"number {n}", "evenodd") for n in range(160)]
    last = list(learn_pairs(learner, "parity", pairs, held_out=[("number 500", "evenodd")]))[-1]
    assert last.held_out_accuracy == 1.0
