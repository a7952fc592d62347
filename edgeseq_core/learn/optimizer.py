"""AdamW over a task's calibration: rows may be added, the state travels in the checkpoint.

By hand, because torch's imports its compiler on first use (torch 2.13: 1.4 CPU-seconds and 72 MB).
"""

from __future__ import annotations

import torch
from torch import Tensor

Moments = dict[str, dict[str, Tensor]]  # "first" and "second", by tensor name

FIRST, SECOND = 0.9, 0.98  # how much of the past a moment keeps, a step
EPSILON = 1e-8


class CalibrationOptimizer:
    """Moments by tensor name; one count of steps for all tensors.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2.
    """

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.count = 0  # steps taken
        self._first: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}
        self._leaves: dict[str, Tensor] = {}

    def leaves(self, tensors: dict[str, Tensor]) -> None:
        """Make every tensor a trainable leaf in place; what is new in it has no moments yet."""
        if self._leaves and all(self._leaves.get(name) is t for name, t in tensors.items()):
            return
        for name, tensor in tensors.items():
            tensors[name] = tensor.detach().requires_grad_(True)
        if self.count:  # in the order of the tensors, in which a checkpoint has them
            self._first = {n: _grown(self._first.get(n), t) for n, t in tensors.items()}
            self._second = {n: _grown(self._second.get(n), t) for n, t in tensors.items()}
        self._leaves = dict(tensors)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One AdamW step at ``rate`` times the learning rate, from the leaves' gradients."""
        leaves = list(self._leaves.values())
        gradients = [torch.zeros_like(t) if t.grad is None else t.grad for t in leaves]
        if not self.count:
            self._first = {name: torch.zeros_like(t) for name, t in self._leaves.items()}
            self._second = {name: torch.zeros_like(t) for name, t in self._leaves.items()}
        self.count += 1
        first = [self._first[name] for name in self._leaves]
        second = [self._second[name] for name in self._leaves]
        torch._foreach_lerp_(first, gradients, 1 - FIRST)
        torch._foreach_mul_(second, SECOND)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - SECOND)
        spread = torch._foreach_sqrt(second)
        torch._foreach_div_(spread, (1 - SECOND**self.count) ** 0.5)
        torch._foreach_add_(spread, EPSILON)
        rate *= self.learning_rate
        torch._foreach_mul_(leaves, 1 - rate * self.weight_decay)
        torch._foreach_addcdiv_(leaves, first, spread, -rate / (1 - FIRST**self.count))

    def clear(self) -> None:
        """Drop the gradients."""
        for leaf in self._leaves.values():
            leaf.grad = None

    def state(self) -> Moments:
        """First and second moments by tensor name; empty before the first step."""
        return {"first": self._first, "second": self._second} if self.count else {}

    def load(self, moments: Moments, count: int) -> None:
        """Resume from a checkpoint's moments and step count."""
        self.count, self._leaves = count, {}
        self._first, self._second = moments.get("first", {}), moments.get("second", {})


def _grown(moment: Tensor | None, leaf: Tensor) -> Tensor:
    """The moment in the shape of its leaf, zero where the leaf is new."""
    if moment is not None and moment.shape == leaf.shape:
        return moment
    grown = torch.zeros_like(leaf, requires_grad=False)
    if moment is not None:
        grown[tuple(map(slice, moment.shape))] = moment
    return grown
