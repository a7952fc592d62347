"""Every token mixer: padding is not seen, no token sees its future, a state goes on where it stopped."""

import pytest
import torch
from torch import Tensor

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.mixer import PrefixedAttention, Retention, SoftmaxAttention, TokenMixer
from edgeseq_core.model.positions import LinearBias, Rotary

CONFIG = ModelConfig(vocabulary_size=300, d_model=32, heads=4)
FEWER = ModelConfig(vocabulary_size=300, d_model=32, heads=4, key_heads=2)
ROWS, LENGTH = 3, 9

MIXERS = {
    "attention": lambda: SoftmaxAttention(CONFIG, Rotary(CONFIG)),
    "attention with linear positions": lambda: SoftmaxAttention(CONFIG, LinearBias(CONFIG)),
    "grouped attention": lambda: SoftmaxAttention(FEWER, Rotary(FEWER)),
    "prefixed attention": lambda: PrefixedAttention(
        CONFIG, LinearBias(CONFIG), torch.ones(2, 32), torch.ones(2, 32)
    ),
    "retention": lambda: Retention(CONFIG),
    "grouped retention": lambda: Retention(FEWER),
}


@pytest.fixture(params=list(MIXERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mixer(name: str) -> TokenMixer:
    return MIXERS[name]()


@pytest.fixture
def qkv(name: str) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    groups = 2 if name.startswith("grouped") else 4
    q, k, v = (torch.randn(ROWS, heads, LENGTH, 8, generator=draw) for heads in (4, groups, groups))
    return q, k, v


QKV = tuple[Tensor, Tensor, Tensor]


def cut(qkv: QKV, at: slice) -> QKV:
    q, k, v = (x[:, :, at] for x in qkv)
    return q, k, v


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_both_ways_sees_all_that_is_real_and_no_padding(mixer: TokenMixer, qkv: QKV) -> None:
    real = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    real[1, 6:] = False
    whole = mixer.both_ways(*qkv, real)
    assert whole.shape == qkv[0].shape
    assert close(whole[1:2, :, :6], mixer.both_ways(*cut(qkv, slice(6)), real[:, :6])[1:2])
    q, k, v = (x.clone() for x in qkv)
    for x in (k, v):
        x[1, :, 6:] = 7.0
    assert close(whole[1, :, :6], mixer.both_ways(q, k, v, real)[1, :, :6])
    v[0, :, LENGTH - 1] = 7.0  # a real one: seen by the first token, a later one
    assert not close(whole[0, :, 0], mixer.both_ways(q, k, v, real)[0, :, 0])


def test_onward_no_token_sees_its_future_and_each_sees_its_past(
    mixer: TokenMixer, qkv: QKV
) -> None:
    q, k, v = (x.clone() for x in qkv)
    before = mixer.onward(q, k, v, None)
    k[:, :, 5], v[:, :, 5] = 7.0, 7.0
    after = mixer.onward(q, k, v, None)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not any(close(before[:, :, at], after[:, :, at]) for at in (5, 6))


@pytest.mark.parametrize("sizes", [[1] * LENGTH, [LENGTH], [4, 1, 1, 3], [1, 8]])
def test_one_step_after_the_other_equals_the_parallel_form(
    mixer: TokenMixer, qkv: QKV, sizes: list[int]
) -> None:
    state = mixer.new_state(ROWS, LENGTH, qkv[0])
    pieces = zip(*(x.split(sizes, 2) for x in qkv), strict=True)
    stepped = torch.cat([mixer.onward(q, k, v, state) for q, k, v in pieces], 2)
    assert close(stepped, mixer.onward(*qkv, None))


def test_a_state_goes_on_for_the_rows_that_are_selected(mixer: TokenMixer, qkv: QKV) -> None:
    rows = torch.tensor([2, 2, 0])
    state = mixer.new_state(ROWS, LENGTH, qkv[0])
    mixer.onward(*cut(qkv, slice(6)), state)
    state.select(rows)
    q, k, v = (x[rows] for x in cut(qkv, slice(6, None)))
    assert close(mixer.onward(q, k, v, state), mixer.onward(*qkv, None)[rows, :, 6:])


def test_a_row_does_not_depend_on_the_others(mixer: TokenMixer, qkv: QKV) -> None:
    q, k, v = (x[1:2] for x in qkv)
    real = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    assert close(mixer.both_ways(*qkv, real)[1:2], mixer.both_ways(q, k, v, real[1:2]))
    assert close(mixer.onward(*qkv, None)[1:2], mixer.onward(q, k, v, None))


def test_gradients_reach_queries_keys_and_values(mixer: TokenMixer, qkv: QKV) -> None:
    leaves = [x.clone().requires_grad_(True) for x in qkv]
    real = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    (mixer.both_ways(*leaves, real) + mixer.onward(*leaves, None)).square().sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() > 0


def test_retention_remembers_in_constant_space() -> None:
    state = Retention(CONFIG).new_state(ROWS, 1_000, torch.zeros(1))
    assert state.products.shape == (ROWS, 4, 8, 8)
