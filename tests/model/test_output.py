"""The copy path: the distribution it says, finite gradients, own symbols, old bases, and a canary."""

import json
import random
import string
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import load, save

from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.config import ModelConfig, preset
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.model.output import DISTANCE_COST, POINTER_BASE
from edgeseq_core.model.positions import Rotary
from edgeseq_core.model.source_encoder import BatchEncoder, CachingEncoder
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.testing.base import tiny_base, write_tiny_base
from edgeseq_core.text.vocabulary import BOS, EOS, PAD, Vocabulary


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), output="copy")


def bare(model: EdgeFormer) -> BaseWeights:
    return BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])


class Gated(BaseWeights):
    """The bare base with the gate's logit moved."""

    def __init__(self, model: EdgeFormer, moved: float) -> None:
        super().__init__(model, model.task_tokens[None], model.task_vector[None, None])
        self.moved = moved

    def project(self, x: torch.Tensor, site: str, part: str) -> torch.Tensor:
        return super().project(x, site, part) + (self.moved if part == "gate" else 0.0)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    source = torch.randint(3, 20, (3, 9), generator=draw)  # few symbols: some come twice
    source[1, 6:] = PAD
    return source, torch.randint(3, 300, (3, 5), generator=draw)


def explicit(model: EdgeFormer, source: torch.Tensor, target: torch.Tensor, moved: float):  # type: ignore[no-untyped-def]
    """``(1 - g) p_vocabulary + g p_copy`` with loops, as the paper writes it."""
    weights = Gated(model, moved)
    memory = model.encode(source, weights)
    hidden = model.decode(target, memory, weights)
    query = weights.project(hidden, "decoder.copy", "q")[:, None]
    query = Rotary(model.config, base=POINTER_BASE).turn(query, 0)[:, 0]
    gate = torch.sigmoid(weights.project(hidden, "decoder.copy", "gate"))
    p = (1 - gate) * weights.logits(hidden).softmax(-1)
    assert memory.copyable is not None
    for row in range(source.shape[0]):
        length = int((source[row] != PAD).sum())
        match = query[row] @ memory.copyable.keys[row, :length].T * model.config.head_width**-0.5
        far = [[abs(t - s) for s in range(length)] for t in range(target.shape[1])]
        match = match - DISTANCE_COST * torch.tensor(far)
        for at, weight in enumerate(match.softmax(-1).unbind(-1)):
            p[row, :, source[row, at]] = p[row, :, source[row, at]] + gate[row, :, 0] * weight
    return p


def test_a_new_gate_is_nearly_shut() -> None:
    torch.manual_seed(0)
    model = EdgeFormer(preset("128", vocabulary_size=300, output="copy"))
    source, target = rows()
    with torch.no_grad():
        hidden = model.decode(target, model.encode(source, bare(model)), bare(model))
        gate = bare(model).project(hidden, "decoder.copy", "gate").sigmoid()
    assert 0.01 < gate.mean() < 0.15


@pytest.mark.parametrize("moved", [0.0, -3.0, 5.0])
def test_scores_are_the_logarithm_of_the_mixture(base: Base, moved: float) -> None:
    source, target = rows()
    with torch.no_grad():
        scores = base.model(source, target, Gated(base.model, moved))
        wanted = explicit(base.model, source, target, moved)
    assert torch.allclose(scores.exp(), wanted, atol=1e-6)
    assert torch.allclose(scores.logsumexp(-1), torch.zeros(3, 5), atol=1e-5)


@pytest.mark.parametrize("moved", [0.0, -200.0, 200.0])
def test_gradients_are_those_of_the_mixture_and_finite_with_a_shut_gate(
    base: Base, moved: float
) -> None:
    source, target = rows()
    wanted = torch.randint(3, 300, (3, 5), generator=torch.Generator().manual_seed(1))
    wanted[:, :2] = source[:, :2]  # some are in the source
    model = EdgeFormer(base.config)
    model.load_state_dict(base.model.state_dict())
    loss = F.cross_entropy(
        model(source, target, Gated(model, moved)).transpose(1, 2), wanted, label_smoothing=0.1
    )
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    assert all(torch.isfinite(g).all() for g in found.values() if g is not None)
    assert torch.isfinite(loss)
    if moved:
        return
    model.zero_grad()
    log_p = explicit(model, source, target, moved).log()
    F.cross_entropy(log_p.transpose(1, 2), wanted, label_smoothing=0.1).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(found[name], parameter.grad, atol=1e-5), name


def test_the_pointer_stays_where_the_same_turn_comes_round_again() -> None:
    """Of places that its fastest turn alone cannot tell apart (every 44 tokens), it takes the nearest."""
    torch.manual_seed(0)
    model = EdgeFormer(preset("128", vocabulary_size=300, output="copy"))
    with torch.no_grad():
        for part in ("q", "k"):
            model.matrix("decoder.copy", part).zero_()
            model.bias("decoder.copy", part)[0] = 10.0
        source = torch.arange(100, 170)[None]
        target = torch.cat([torch.tensor([[BOS]]), source], 1)
        p = model(source, target[:, :-1], Gated(model, 50.0)).exp()
    assert p[0].gather(1, source.T).min() > 0.9


def copying(base: Base, symbols: str = "") -> Calibration:
    """A calibration that only points, at the token as far into the source as the answer is."""
    calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    calibration.admit([symbols])
    calibration.tensors["decoder.copy.gate"] += 50.0
    return calibration


def test_an_own_symbol_is_copied_from_the_bytes_that_spell_it(base: Base) -> None:
    """With the gate open, all probability is on what the source holds: characters, own symbols, bytes."""
    source, calibration = "a漢字", copying(base, "漢")
    weights = MergedWeights(calibration)
    with torch.no_grad():
        memory = BatchEncoder(base).encode([source], [calibration.table], weights)
        scores = base.model.scores(torch.tensor([[BOS]]), memory, weights)[0, 0]
    likely = {int(token) for token in (scores > -30).nonzero()}
    spelt = base.vocabulary.encode("字")
    assert len(spelt) == 3
    assert likely == {*base.vocabulary.encode("a"), *calibration.table.encode("漢"), *spelt, EOS}


def test_both_encoders_remember_the_same(base: Base) -> None:
    calibration = copying(base, "漢")
    weights, tables = MergedWeights(calibration), [calibration.table] * 2
    target = torch.tensor([[BOS, 80, 90], [BOS, 80, 90]])
    with torch.no_grad():
        a, b = (
            base.model.scores(
                target, encoder.encode(["a漢b", "a longer one"], tables, weights), weights
            )
            for encoder in (BatchEncoder(base), CachingEncoder(base, calibrated_layers=1))
        )
    assert torch.allclose(a, b, atol=1e-4)


FIRST_FIELDS = (
    *("vocabulary_size", "d_model", "heads", "encoder_layers", "decoder_layers", "encoder_ffn"),
    *("decoder_ffn", "attention_groups", "ffn_groups", "task_tokens", "max_tokens"),
)


def test_a_header_without_the_field_is_a_base_without_the_part(tmp_path: Path) -> None:
    path = write_tiny_base(tmp_path / "new.safetensors")
    new = Base.load(path)
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["header"])
    old = {field: header["config"][field] for field in FIRST_FIELDS}
    assert old != header["config"]
    header["config"] = old
    data = save(load(path.read_bytes()), metadata={"header": json.dumps(header)})
    (tmp_path / "old.safetensors").write_bytes(data)
    before = Base.load(tmp_path / "old.safetensors")
    assert before.config == new.config
    source, target = rows()
    with torch.no_grad():
        a = new.model(source, target, bare(new.model))
        weights = bare(before.model)
        hidden = before.model.decode(target, before.model.encode(source, weights), weights)
        assert torch.equal(a, weights.logits(hidden))


# --- canary ---------------------------------------------------------------------------------------

TRAINED_LENGTH = 12
SEEN = string.ascii_lowercase + string.digits + "äöüßéñçøåãõ"
UNSEEN = string.ascii_uppercase + "абвгдежзийклмнопрстуфхцчшщъыьэюя"
UNKNOWN = "漢字仮名交文"


def strings(rng: random.Random, letters: str, shortest: int, longest: int, count: int) -> list[str]:
    """Strings over small and large parts of an alphabet, so that many repeat themselves."""
    out = []
    for _ in range(count):
        some = rng.sample(letters, min(len(letters), rng.choice([3, 10, 60])))
        out.append("".join(rng.choices(some, k=rng.randint(shortest, longest))))
    return out


def train_to_copy(path: Path, *, steps: int) -> Base:
    """An int8 base that has seen strings of up to `TRAINED_LENGTH` known characters, copied."""
    torch.manual_seed(0)
    rng, vocabulary = random.Random(0), Vocabulary(SEEN + UNSEEN)
    config = ModelConfig(
        vocabulary_size=len(vocabulary),
        d_model=64,
        encoder_layers=2,
        decoder_layers=1,
        attention_groups=2,
        encoder_ffn=128,
        decoder_ffn=32,
        output="copy",
    )
    model = EdgeFormer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 50, (steps - step) / steps + 0.02)
        ids = [vocabulary.encode(text) for text in strings(rng, SEEN, 1, TRAINED_LENGTH, 32)]
        source, target = pad([[*r, EOS] for r in ids]), pad([[BOS, *r, EOS] for r in ids])
        scores = model(source, target[:, :-1], bare(model)).transpose(1, 2)
        loss = F.cross_entropy(scores, target[:, 1:], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    write_base(path, tensors, config=config, vocabulary=vocabulary, notes={})
    return Base.load(path)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_copies_what_is_two_to_four_times_longer_and_never_seen(tmp_path: Path) -> None:
    """The canary: >= 99 % exact, int8 base, cached decoding, known, unseen and byte-spelt characters."""
    base = train_to_copy(tmp_path / "copy.safetensors", steps=150)
    engine = TorchEngine(base)
    blank = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    engine.swap("copy", "copy-1", blank.to_payload(base.digest))
    rng = random.Random(1)
    for letters, bytes_each in ((SEEN, 1), (UNSEEN, 1), (UNKNOWN, 3)):
        shortest, longest = 2 * TRAINED_LENGTH // bytes_each, 4 * TRAINED_LENGTH // bytes_each
        texts = strings(rng, letters, shortest, longest, 200)
        answers = engine.generate([SourceRow("copy", text) for text in texts], Limits())
        exact = sum(a.target == text for a, text in zip(answers, texts, strict=True))
        assert exact >= 0.99 * len(texts), f"{letters[:6]}: {exact} of {len(texts)}"
