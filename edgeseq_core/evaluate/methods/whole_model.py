"""What the baselines share: the base with all its numbers trained, as the product trains a calibration.

Loss, step size schedule (anew for each task), gradient cap and averaging are the product's; each task has
its own task tokens and task vector, as in pretraining, so that a whole model is told the task as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.engine import Limits
from edgeseq_core.evaluate.methods.method import Stored, Terms, int8_bytes
from edgeseq_core.model.batch import pad
from edgeseq_core.model.search import search
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import BOS, EOS, PAD

# The best of a grid on four of the six tasks of benchmarks/results/unseen.md, next to it on the others.
LEARNING_RATE = 5e-3
ANSWERED_AT_ONCE = 64


class Row(NamedTuple):
    """A pair and its task."""

    task: str
    source: str
    target: str


class WholeModel:
    """Trains all numbers of the base; serves their running average."""

    def __init__(self, terms: Terms) -> None:
        base = terms.base
        self._learning = terms.learning
        self._trainee = Trainee.of_base(base.model, terms.tasks, base.vocabulary)
        self._served = copy.deepcopy(self._trainee).requires_grad_(False)
        self.parameters = list(self._trainee.parameters())
        self._optimizer = torch.optim.AdamW(
            self.parameters,
            betas=(0.9, 0.98),
            weight_decay=terms.learning.weight_decay,
            foreach=True,
        )
        self._task, self._schedule = "", 0

    # --- learning ----------------------------------------------------------------------------------

    def logits(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Teacher-forced scores ``[B, T, V]`` and the wanted tokens ``[B, T]``."""
        encode = self._trainee.vocabulary.encode
        source = pad([[*encode(row.source), EOS] for row in rows])
        target = pad([[BOS, *encode(row.target), EOS] for row in rows])
        return self._trainee(source, target[:, :-1], self._tasks(rows)), target[:, 1:]

    def cross_entropy(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """The label-smoothed loss a token."""
        return F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(),
            ignore_index=PAD,
            label_smoothing=self._learning.label_smoothing,
        )

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """The loss of pairs."""
        return self.cross_entropy(*self.logits(rows))

    @torch.no_grad()
    def losses(self, rows: Sequence[Row]) -> Tensor:
        """The plain loss a token of each pair ``[B]``."""
        logits, wanted = self.logits(rows)
        losses = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD, reduction="none"
        )
        return losses.view_as(wanted).sum(1) / (wanted != PAD).sum(1)

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Of every parameter."""
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.parameters, found, strict=True)
        ]

    def step(self, task: str, gradient: Sequence[Tensor]) -> None:
        """One optimizer step along ``gradient``, while pairs of ``task`` come."""
        self._enter(task)
        self._schedule += 1
        self._move(gradient, self._rate(self._schedule))
        past = min(self._learning.averaging, self._schedule / (self._schedule + 5))
        with torch.no_grad():
            for mean, own in zip(self._served.parameters(), self.parameters, strict=True):
                mean.lerp_(own, 1 - past)

    @contextmanager
    def virtual_step(self, task: str, gradient: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the parameters are as the next step along ``gradient`` would make them."""
        self._enter(task)
        before = [parameter.detach().clone() for parameter in self.parameters]
        state = copy.deepcopy(self._optimizer.state_dict())
        self._move(gradient, self._rate(self._schedule + 1))
        yield
        self._optimizer.load_state_dict(state)
        _copy(before, self.parameters)

    @contextmanager
    def adapted(self, rows: Sequence[Row], *, steps: int, rate: float) -> Iterator[None]:
        """Inside, it serves what steps on ``rows`` at ``rate`` make of it; nothing is left of them."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        served = [parameter.clone() for parameter in self._served.parameters()]
        state = copy.deepcopy(self._optimizer.state_dict())
        for _ in range(steps):
            self._move(self.gradient(self.loss(rows)), rate)
        _copy(self.parameters, self._served.parameters())
        yield
        self._optimizer.load_state_dict(state)
        _copy(before, self.parameters)
        _copy(served, self._served.parameters())

    def _enter(self, task: str) -> None:
        """The step size schedule begins anew with each task."""
        if task != self._task:
            self._task, self._schedule = task, 0

    def _move(self, gradient: Sequence[Tensor], rate: float) -> None:
        for parameter, own in zip(self.parameters, gradient, strict=True):
            parameter.grad = own.clone()  # the cap scales it in place
        nn.utils.clip_grad_norm_(self.parameters, self._learning.norm_cap)
        for group in self._optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        self._optimizer.step()

    def train(self, task: str, rows: Sequence[Row]) -> None:
        """One step on pairs by the plain loss."""
        self.step(task, self.gradient(self.loss(rows)))

    def _rate(self, at: int) -> float:
        s = self._learning
        late = math.sqrt(s.decay_after_steps / max(at, s.decay_after_steps))
        return min(1.0, at / s.warmup_steps) * max(s.floor_ratio, late)

    # --- serving -----------------------------------------------------------------------------------

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        """Greedy answers by the averaged weights."""
        out: list[str] = []
        for at in range(0, len(sources), ANSWERED_AT_ONCE):
            out += self._decode([Row(task, s, "") for s in sources[at : at + ANSWERED_AT_ONCE]])
        return out

    @torch.inference_mode()
    def _decode(self, rows: Sequence[Row]) -> list[str]:
        served, vocabulary = self._served, self._served.vocabulary
        model, weights = served.model, served.weights(self._tasks(rows))
        memory = model.encode(pad([[*vocabulary.encode(r.source), EOS] for r in rows]), weights)
        limits = Limits(max_tokens=min(Limits().max_tokens, model.config.max_tokens))
        cache = model.new_cache(len(rows), limits.max_tokens)

        def step(token: Tensor, _parents: Tensor | None) -> Tensor:
            return model.scores(token, memory, weights, cache)[:, 0].log_softmax(-1)

        found = search(step, [1] * len(rows), limits)
        return [vocabulary.decode(one.hypotheses[0].tokens) for one in found]

    def model_bytes(self) -> int:
        """As int8, like the base; the tasks' tokens and vectors in fp32."""
        starts = sum(p.numel() for p in self._served.starts.parameters())
        return int8_bytes(self._served.model) + 4 * starts

    def _tasks(self, rows: Sequence[Row]) -> Tensor:
        names = self._trainee.names
        return torch.tensor([names.index(row.task) for row in rows])


@torch.no_grad()
def _copy(values: Iterable[Tensor], into: Iterable[Tensor]) -> None:
    for value, tensor in zip(values, into, strict=True):
        tensor.copy_(value)


class Baseline:
    """A method that trains one whole model; subclasses say how, and what they keep beside it."""

    online: ClassVar[bool] = True

    def __init__(self, terms: Terms) -> None:
        self.terms, self.model = terms, WholeModel(terms)

    def end(self, *, last: bool) -> None:
        """By default nothing: a buffer stays."""

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        return self.model.answers(task, sources)

    def stored(self) -> Stored:
        return Stored(self.model.model_bytes(), self.buffer_bytes())

    def buffer_bytes(self) -> int:
        """By default nothing is kept."""
        return 0


def rows_of(task: str, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Pairs of one task as rows."""
    return [Row(task, source, target) for source, target in pairs]
