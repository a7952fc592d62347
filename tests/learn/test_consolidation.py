"""Training of base and calibrations together: what moves, what does not, and how far."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from edgeseq_core.learn.consolidation import Consolidation, ConsolidationSettings, Replay
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from tests.learn.rig import numbered

PAIRS = {"numbers": numbered(0, 20), "letters": [(f"letter {n}", "é漢"[n % 2]) for n in range(20)]}
SHORT = ConsolidationSettings(cpu_s=3, batches=2, batch=4, base_rate=1e-2, calibration_rate=1e-2)
LONGER = replace(SHORT, cpu_s=12)


def consolidated(
    base: Base, settings: ConsolidationSettings = SHORT, *, gone: float = 0.0
) -> Consolidation:
    seconds = count()
    shape = CalibrationConfig(rank=2)
    champions = {task: Calibration(base.model, base.vocabulary, shape) for task in PAIRS}
    replay = {task: Replay(pairs, gone) for task, pairs in PAIRS.items()}
    run = Consolidation(base, champions, replay, settings, cpu_clock=lambda: float(next(seconds)))
    run.run()
    return run


def numbers(run: Consolidation, share: float) -> dict[str, Tensor]:
    """All numbers on the way from the old base."""
    model, calibrations = run.blended(share)
    found = {name: p.detach() for name, p in model.named_parameters()}
    for task, calibration in calibrations.items():
        found |= {f"{task}.{name}": t for name, t in calibration.tensors.items()}
    return found


def test_base_and_calibrations_move_together_and_the_old_ones_stay(base: Base) -> None:
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    run = consolidated(base)
    assert run.steps == 3
    after = dict(run.model.named_parameters())
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    # What no task's calibration reads: each has task tokens and a task vector of its own.
    assert after.keys() - moved == {"task_tokens", "task_vector"}
    for name, p in base.model.named_parameters():
        assert torch.equal(p, before[name])
        assert not p.requires_grad
    assert not any(p.requires_grad for p in run.model.parameters())
    for calibration in run.calibrations.values():
        assert calibration.tensors["token"].ne(base.model.task_tokens).any()
    assert run.calibrations["letters"].table.symbols == ("漢",)


def test_the_way_begins_at_the_old_base_and_ends_at_the_run(base: Base) -> None:
    run = consolidated(base)
    start, half, end = (numbers(run, share) for share in (0.0, 0.5, 1.0))
    for name, p in base.model.named_parameters():
        assert torch.equal(start[name], p)
    for name in start:
        assert torch.allclose(half[name], (start[name] + end[name]) / 2, atol=1e-6)
    assert torch.equal(end["embedding"], run.model.embedding)


def test_the_same_seed_makes_the_same_base(base: Base) -> None:
    one, two = (numbers(consolidated(base), 1.0) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = numbers(consolidated(base, replace(SHORT, seed=2)), 1.0)
    assert not torch.equal(other["embedding"], one["embedding"])


def test_a_base_that_may_not_move_does_not(base: Base) -> None:
    made = numbers(consolidated(base, replace(SHORT, base_rate=0.0)), 1.0)
    assert all(torch.equal(made[name], p) for name, p in base.model.named_parameters())


def test_it_learns(base: Base) -> None:
    assert consolidated(base, LONGER).loss < 0.8 * consolidated(base).loss


def test_champions_are_followed_where_pairs_are_gone(base: Base) -> None:
    """The champions are bare: to follow them is to stay unsure of the labels."""
    alone = consolidated(base, LONGER)
    followed = consolidated(base, replace(LONGER, follow=0.9), gone=1.0)
    start = numbers(alone, 0.0)
    far, near = (
        sum(float((p - start[name]).abs().sum()) for name, p in numbers(run, 1.0).items())
        for run in (alone, followed)
    )
    assert near < far
    same = consolidated(base, replace(SHORT, follow=0.9)), consolidated(base)
    assert torch.equal(same[0].model.embedding, same[1].model.embedding)  # nothing is gone
