"""A base with subwords: its file, a task taught on it, and what it may answer when constrained."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save

from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import FORMAT, read_header
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.testing.base import CHARACTERS, tiny_base, write_tiny_base
from edgeseq_core.text.subwords import Subwords, learn_subwords
from edgeseq_core.text.vocabulary import EOS
from tests.contract.engines import payload

WORDS = ["reading", "leading", "trading", "loading", "heading", "even", "odd", "number 7"] * 3
SUBWORDS = learn_subwords(WORDS, CHARACTERS, pieces=24)


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "copy": {"output": "copy"},
    "bands": {"bands": (300, 340)},
}


@pytest.fixture(scope="module", params=list(SHAPES))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    return tiny_base(folder, vocabulary=SUBWORDS, **SHAPES[request.param])


def test_the_file_holds_the_vocabulary(tmp_path: Path, base: Base) -> None:
    assert isinstance(base.vocabulary, Subwords)
    assert base.vocabulary.pieces == SUBWORDS.pieces
    plain = read_header(write_tiny_base(tmp_path / "plain.safetensors"))
    assert plain.vocabulary.digest != base.vocabulary.digest == SUBWORDS.digest
    assert plain.record_digest != base.header.record_digest


def test_every_token_of_a_target_gets_a_row_and_its_characters_make_the_alphabet(
    base: Base,
) -> None:
    calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    calibration.admit(["leading漢"])
    whole = [token for token in base.vocabulary.encode("leading") if len(_text(base, token)) > 1]
    assert whole
    assert {*whole, len(base.vocabulary)} <= set(calibration.rows)
    pieces = [_text(base, at) for at in calibration.alphabet if EOS < at < len(base.vocabulary)]
    assert set("".join(pieces)) == set("leading")
    assert set(calibration.alphabet) > set(calibration.rows)  # pieces that no target had yet


def test_a_constrained_answer_has_only_characters_of_the_targets(base: Base) -> None:
    engine = TorchEngine(base)
    engine.swap("one", "one-1", payload(base, 0, "reading漢"))
    limits, sources = Limits(max_tokens=12), ("reading", "字", "7 x")
    free = engine.generate([SourceRow("one", s) for s in sources], limits)
    held = engine.generate([SourceRow("one", s, 1, constrained=True) for s in sources], limits)
    assert not {c for one in free for c in one.target} <= set("reading漢")  # else nothing is shown
    assert {c for one in held for c in one.target} <= set("reading漢")


@pytest.mark.parametrize(
    "wrong",
    [{"merges": [[0, 9]]}, {"merges": [0]}, {"config": {"bands": [1]}}, {"config": {"x": 1}}],
)
def test_a_header_that_makes_no_sense_is_no_base(tmp_path: Path, wrong: dict[str, Any]) -> None:
    plain = {"format": FORMAT, "config": {"vocabulary_size": 300}, "characters": "ab", "notes": {}}
    wrong = {**wrong, "config": {"vocabulary_size": 300, **wrong.get("config", {})}}
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    for path, header in ((good, plain), (bad, plain | wrong)):
        path.write_bytes(save({}, metadata={"header": json.dumps(header)}))
    assert read_header(good).vocabulary.pieces == ("a", "b")
    with pytest.raises(SnapshotError, match="makes no sense"):
        read_header(bad)


def _text(base: Base, token: int) -> str:
    return base.vocabulary.decode([token])
