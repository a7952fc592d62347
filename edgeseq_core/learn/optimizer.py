"""AdamW over a task's calibration: rows may be added, the state travels in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST, SECOND = "first.", "second."  # moments, by tensor name, in a checkpoint


class CalibrationOptimizer:
    """torch's AdamW, keyed by tensor name instead of by position."""

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._moments: dict[str, Tensor] = {}
        self._count = 0
        self._adam: torch.optim.AdamW | None = None
        self._leaves: dict[str, Tensor] = {}

    def leaves(self, tensors: dict[str, Tensor]) -> None:
        """Make every tensor a trainable leaf in place; grown ones keep the moments of their old rows."""
        if self._adam and all(self._leaves.get(name) is tensor for name, tensor in tensors.items()):
            return
        self._moments = self.state()
        for name in tensors:
            tensors[name] = tensors[name].detach().requires_grad_(True)
        self._leaves = dict(tensors)
        self._adam = torch.optim.AdamW(
            list(tensors.values()),
            lr=self.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=self.weight_decay,
            foreach=True,
        )
        for name, leaf in tensors.items():
            if self._count and FIRST + name in self._moments:
                self._adam.state[leaf] = {
                    "step": torch.tensor(float(self._count)),
                    "exp_avg": _grown(self._moments[FIRST + name], leaf),
                    "exp_avg_sq": _grown(self._moments[SECOND + name], leaf),
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

    def state(self) -> dict[str, Tensor]:
        """First and second moments by tensor name."""
        if self._adam is None:
            return self._moments
        out: dict[str, Tensor] = {}
        for name, leaf in self._leaves.items():
            of_leaf = self._adam.state.get(leaf)
            if of_leaf:
                out[FIRST + name], out[SECOND + name] = of_leaf["exp_avg"], of_leaf["exp_avg_sq"]
        return out

    def load(self, moments: Mapping[str, Tensor], count: int) -> None:
        """Resume from a checkpoint's moments and step count."""
        self._moments, self._count, self._adam, self._leaves = dict(moments), count, None, {}

    @property
    def count(self) -> int:
        """Steps taken."""
        return self._count


def _grown(moment: Tensor, leaf: Tensor) -> Tensor:
    missing = leaf.shape[0] - moment.shape[0]
    if missing == 0:
        return moment
    padding = [0, 0] * (moment.dim() - 1) + [0, missing]
    return F.pad(moment, padding)
