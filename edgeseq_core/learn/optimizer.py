"""AdamW over a task's calibration: rows may be added, the state travels in the checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

Moments = dict[str, dict[str, Tensor]]  # "first" and "second", by tensor name


class CalibrationOptimizer:
    """torch's AdamW, keyed by tensor name instead of by position."""

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._moments: Moments = {}
        self._count = 0
        self._adam: torch.optim.AdamW | None = None
        self._leaves: dict[str, Tensor] = {}

    def leaves(self, tensors: dict[str, Tensor]) -> None:
        """Make every tensor a trainable leaf in place; what is new in it has no moments yet."""
        if self._adam and all(self._leaves.get(name) is tensor for name, tensor in tensors.items()):
            return
        self._moments = self.state()
        for name, tensor in tensors.items():
            tensors[name] = tensor.detach().requires_grad_(True)
        self._leaves = dict(tensors)
        self._adam = torch.optim.AdamW(
            list(tensors.values()),
            lr=self.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=self.weight_decay,
            fused=True,
        )
        if self._moments:
            for name, leaf in tensors.items():
                self._adam.state[leaf] = {
                    "step": torch.tensor(float(self._count)),
                    "exp_avg": _grown(self._moments["first"].get(name), leaf),
                    "exp_avg_sq": _grown(self._moments["second"].get(name), leaf),
                }

    def step(self, rate: float) -> None:
        """One AdamW step at ``rate`` times the learning rate, from the leaves' gradients."""
        assert self._adam is not None
        for group in self._adam.param_groups:
            group["lr"] = self.learning_rate * rate
        self._adam.step()
        self._count += 1

    def clear(self) -> None:
        """Drop the gradients."""
        assert self._adam is not None
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> Moments:
        """First and second moments by tensor name; empty before the first step."""
        if self._adam is None or not self._adam.state:
            return self._moments
        states = {name: self._adam.state[leaf] for name, leaf in self._leaves.items()}
        return {
            "first": {name: state["exp_avg"] for name, state in states.items()},
            "second": {name: state["exp_avg_sq"] for name, state in states.items()},
        }

    def load(self, moments: Moments, count: int) -> None:
        """Resume from a checkpoint's moments and step count."""
        self._moments, self._count, self._adam, self._leaves = moments, count, None, {}

    @property
    def count(self) -> int:
        """Steps taken."""
        return self._count


def _grown(moment: Tensor | None, leaf: Tensor) -> Tensor:
    """The moment in the shape of its leaf, zero where the leaf is new."""
    if moment is not None and moment.shape == leaf.shape:
        return moment
    grown = torch.zeros_like(leaf, requires_grad=False)
    if moment is not None:
        grown[tuple(map(slice, moment.shape))] = moment
    return grown
