"""Consolidation: the base itself learns from what its tasks keep for replay, champions are its teachers.

All numbers of the base train at a small step size, together with every task's calibration, which starts
as its champion: a calibration that moved with its base needs no learning anew.  The loss of a pair is its
label's and, by as much as the reservoir has let pairs go, the divergence from what the task's champion says
on the old base: of those pairs nothing else is left (word-level distillation, Kim and Rush 2016, arXiv
1606.07947; of an old model for its old tasks: Li and Hoiem 2016, arXiv 1606.09282).  Where all is kept,
following the champion only holds back.  What comes out are running averages.

No store and no process: what may be published of it is decided in `consolidate`.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.model.base import Base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.text.vocabulary import BOS, EOS, PAD

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Replay:
    """What a task keeps for replay, and the share of what it learnt that is gone."""

    pairs: Pairs
    gone: float


@dataclass(frozen=True, kw_only=True)
class ConsolidationSettings:
    """How long a base is consolidated, and how far it may move."""

    cpu_s: float = 300.0  # of training
    base_rate: float = 1.5e-3  # step size of the base, at most
    calibration_rate: float = 6e-3  # of the calibrations, at most: half of the fast path's
    follow: float = 0.5  # share of the loss that is the divergence from a champion, if all is gone
    batches: int = 4  # a step, each of one task
    batch: int = 32  # pairs
    warmup_steps: int = 10
    averaging: float = 0.95  # weight of the past in the averages that come out
    label_smoothing: float = 0.05
    norm_cap: float = 1.0
    seed: int = 1
    encoder_ffn: int | None = None  # hidden units that the encoder's FFNs are widened to first


class Consolidation:
    """A run over some tasks: `run` it once, then `model` and `calibrations` are what came out."""

    def __init__(
        self,
        base: Base,
        champions: Mapping[str, Calibration],
        replay: Mapping[str, Replay],
        settings: ConsolidationSettings,
        *,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """``champions`` (on ``base``) and what there is to learn from, both by task."""
        self.settings, self._cpu_clock, self._replay = settings, cpu_clock, replay
        self._base, self._champions = base, champions
        self._teachers = _Reader(base, champions)
        self.model = copy.deepcopy(base.model).requires_grad_(True)
        self.calibrations = {
            task: _on(self.model, champion, base) for task, champion in champions.items()
        }
        for task, calibration in self.calibrations.items():
            for both in (calibration, champions[task]):
                both.admit(target for _, target in replay[task].pairs)
                both.admit_sources(source for source, _ in replay[task].pairs)
        self._students = _Reader(Base(base.header, self.model), self.calibrations)
        self._drawn = {task: self._shuffled(task) for task in champions}
        self.steps, self.loss = 0, 0.0

    def run(self) -> None:
        """Train for as long as the settings say; at least one step."""
        s, own = self.settings, list[Tensor]()
        for calibration in self.calibrations.values():
            for name, tensor in calibration.tensors.items():
                calibration.tensors[name] = tensor.detach().clone().requires_grad_(True)
                own.append(calibration.tensors[name])
        trained: list[Tensor] = [*self.model.parameters(), *own]
        averages = [tensor.detach().clone() for tensor in trained]
        optimizer = torch.optim.AdamW(
            [
                {"params": list(self.model.parameters()), "peak": s.base_rate},
                {"params": own, "peak": s.calibration_rate},
            ],
            betas=(0.9, 0.98),
            weight_decay=0.0,  # would pull the base to zero, where the old one is wanted
            foreach=True,
        )
        began, turns, done = self._cpu_clock(), self._turns(), 0.0
        while done < 1 or not self.steps:
            self.steps += 1
            rate = min(1.0, self.steps / s.warmup_steps) * 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["peak"]
            optimizer.zero_grad(set_to_none=True)
            losses = []
            for task in (next(turns) for _ in range(s.batches)):
                loss = self._of(task) / s.batches
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.item())
            self.loss = sum(losses)
            if math.isfinite(float(nn.utils.clip_grad_norm_(trained, s.norm_cap))):
                optimizer.step()
            past = min(s.averaging, self.steps / (self.steps + 5))
            with torch.no_grad():
                for average, tensor in zip(averages, trained, strict=True):
                    average.lerp_(tensor, 1 - past)
            done = min(1.0, (self._cpu_clock() - began) / s.cpu_s)
        with torch.no_grad():
            for average, tensor in zip(averages, trained, strict=True):
                tensor.copy_(average)
        self.model.requires_grad_(False)
        for tensor in own:
            tensor.requires_grad_(False)

    def blended(self, share: float) -> tuple[EdgeFormer, dict[str, Calibration]]:
        """Network and calibrations so far from the old ones to those of the run (1: the latter).

        Fine-tuned weights averaged with those before are more robust than either (Wortsman et al. 2022,
        arXiv 2109.01903).
        """
        model = copy.deepcopy(self._base.model)
        with torch.no_grad():
            for moved, new in zip(model.parameters(), self.model.parameters(), strict=True):
                moved.lerp_(new, share)
        made = {}
        for task, champion in self._champions.items():
            made[task] = _on(model, champion, self._base)
            for name, own in self.calibrations[task].tensors.items():
                made[task].tensors[name] = champion.tensors[name].lerp(own, share)
        return model, made

    def _turns(self) -> Iterator[str]:
        """Each task once a round, whatever it holds: none may fall."""
        rng, tasks = random.Random(self.settings.seed), sorted(self.calibrations)
        while True:
            rng.shuffle(tasks)
            yield from tasks

    def _shuffled(self, task: str) -> Iterator[tuple[str, str]]:
        rng, pairs = random.Random(f"{self.settings.seed}:{task}"), list(self._replay[task].pairs)
        while True:
            rng.shuffle(pairs)
            yield from pairs

    def _of(self, task: str) -> Tensor:
        """The loss a token of a task's next batch."""
        s = self.settings
        batch = [next(self._drawn[task]) for _ in range(s.batch)]
        scores, wanted = self._students.scores(task, batch)
        labels = F.cross_entropy(
            scores.flatten(0, 1),
            wanted.flatten(),
            ignore_index=PAD,
            label_smoothing=s.label_smoothing,
        )
        follow = s.follow * self._replay[task].gone
        if not follow:
            return labels
        said = scores.log_softmax(-1)
        with torch.no_grad():
            taught = self._teachers.scores(task, batch)[0].log_softmax(-1)
            # Where the student knows the label better by now, a champion would only hold it back.
            knows, known = (each.gather(-1, wanted[..., None])[..., 0] for each in (taught, said))
            follows = (wanted != PAD) & (knows > known)
        apart = F.kl_div(said, taught, reduction="none", log_target=True).sum(-1)
        held = (apart * follows).sum() / (wanted != PAD).sum()
        return (1 - follow) * labels + follow * held


class _Reader:
    """A base with the calibrations of some tasks, as they are at each reading."""

    def __init__(self, base: Base, calibrations: Mapping[str, Calibration]) -> None:
        self._model, self._calibrations = base.model, calibrations
        self._encoder = BatchEncoder(base)

    def scores(self, task: str, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Scores ``[B, T, V + own]`` of the next tokens, and the tokens that are wanted ``[B, T]``."""
        calibration = self._calibrations[task]
        target = pad([[BOS, *calibration.table.encode(text), EOS] for _, text in pairs])
        weights, tables = MergedWeights(calibration), [calibration.table] * len(pairs)
        memory = self._encoder.encode([source for source, _ in pairs], tables, weights)
        return self._model.scores(target[:, :-1], memory, weights), target[:, 1:]


def _on(model: EdgeFormer, champion: Calibration, base: Base) -> Calibration:
    """A copy of a champion on another network of the same shape."""
    return Calibration(
        model,
        base.vocabulary,
        champion.config,
        tensors=dict(champion.tensors),
        owned=champion.owned,
        place=champion.place,
    )
