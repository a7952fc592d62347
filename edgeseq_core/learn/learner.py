"""The learner of one task: score a batch, then train the calibration on it and on replay.

No store, no clock, no process: what goes in decides, bit for bit, what comes out.  The base is frozen;
gradients flow to the task's calibration alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from torch import Tensor

from edgeseq_core.engine import Score
from edgeseq_core.errors import StateVersionError
from edgeseq_core.learn import plateau, regime
from edgeseq_core.learn.checkpoint_header import read_header
from edgeseq_core.learn.drift import DriftMonitor
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.growth_policy import FIRST_LOOK_PAIRS, need_to_grow
from edgeseq_core.learn.optimizer import CalibrationOptimizer
from edgeseq_core.learn.progress import FADE, Progress
from edgeseq_core.learn.signals import LOSS, Signals, observed
from edgeseq_core.learn.strategies.champion import Champion
from edgeseq_core.learn.strategies.choose import strategy_of
from edgeseq_core.learn.strategies.ema import AVERAGE
from edgeseq_core.learn.strategies.protocol import Candidates
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig, Owned
from edgeseq_core.model.growth import LEAST_ROWS, grow, roomy
from edgeseq_core.model.lessons import Teaching
from edgeseq_core.model.nearest import FEATURES, FEWEST_SOURCES
from edgeseq_core.model.payload import PLACE
from edgeseq_core.model.study import Reading, Study
from edgeseq_core.model.task_space import Place, place_of
from edgeseq_core.settings import LearningSettings

CHECKPOINT_FORMAT = "edgeseq-checkpoint-1"
SIGNALS = "signals"  # what the monitors of signals beside the loss hold, in a checkpoint
OVERDRAW = 16  # reservoir pairs looked at for each that a task which adapts replays


@dataclass(frozen=True)
class StepReport:
    """What one step did: scores before learning, whether the weights moved, whether a drift showed."""

    scores: list[Score]  # of the fresh pairs, prequential
    loss: float
    skipped: str  # why the weights did not move; empty when they did
    drift: bool
    grown: str = ""  # why the calibration grew before the step; empty when it did not
    changed: Mapping[str, int] = field(
        default_factory=dict
    )  # signals beside the loss that changed -> how many pairs ago
    notes: Mapping[str, bytes] = field(default_factory=dict)  # to be kept beside new pairs, by key


class TaskLearner:
    """One task's calibration with its optimizer, averages, drift monitor and progress."""

    def __init__(self, base: Base, task: str, config: LearningSettings, study: Study) -> None:
        self.base, self.task, self.config, self.study = base, task, config, study
        self.progress = Progress()
        self.calibration = Calibration(
            base.model, base.vocabulary, self._shape(), seed=_seed(config.seed, task)
        )
        self.strategy = strategy_of(config)
        self.notes: dict[str, int | str] = {}  # of the strategy, beside its averages
        self.champion: Champion | None = None
        self.begin_averages()
        self.optimizer = CalibrationOptimizer(
            learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.drift = DriftMonitor(delta=config.drift_delta)
        self.signals = Signals(delta=config.drift_delta)

    def _shape(self) -> CalibrationConfig:
        c = self.config
        shape = CalibrationConfig(rank=c.rank, encoder_layers=c.encoder_layers)
        return roomy(self.base, shape, c.growth_max_bytes)

    def begin_averages(self) -> None:
        """All that the strategy averages begins as the calibration is."""
        self.averages = {
            kind: {name: t.detach().clone() for name, t in self.calibration.tensors.items()}
            for kind in self.strategy.averaging.kinds
        }

    def replay_ranks(self) -> list[float]:
        """Which reservoir pairs the next step looks at, as numbers in [0, 1); decided by seed and step.

        `replayed` picks those that it takes.  While the task learns anew they fill the batch.
        """
        rng = random.Random(f"{self.config.seed}:{self.task}:{self.progress.step + 1}")
        each = OVERDRAW if self.adapts else self._candidates
        return [rng.random() for _ in range(self._replays * each)]

    def replayed(self, drawn: Sequence[Example], new: Sequence[Example] = ()) -> list[Example]:
        """Those of the drawn reservoir pairs that a step takes: while the task adapts, none from before.

        ``new`` are the pairs that it learns beside them.
        """
        if self.adapts:
            since = [example for example in drawn if not regime.is_before(self.progress, example)]
            drawn = since[: self._replays * self._candidates]
        return self.strategy.replay.choose(self, Candidates(drawn, new, self._replays))

    @property
    def _replays(self) -> int:
        return self._full_batch if self.progress.relearning else self.config.replay_per_step

    @property
    def _candidates(self) -> int:
        return self.strategy.replay.candidates(self.config)

    def follow(self, snapshot_id: str | None, payload: bytes = b"") -> None:
        """Look at another champion from now on, if the strategy looks at any."""
        if self.strategy.follows:
            self.champion = Champion.of(snapshot_id, payload, self.base) if snapshot_id else None

    @property
    def adapts(self) -> bool:
        """Whether a drift is so recent that only pairs since then are replayed."""
        return regime.adapts(self.progress, self.config)

    @property
    def rehearsals(self) -> int:
        """Replay-only steps after each step with fresh pairs, while nothing waits."""
        return self.config.drift_rehearsals if self.adapts else self.config.rehearsals_per_step

    @property
    def _full_batch(self) -> int:
        return self.config.fresh_per_step + self.config.replay_per_step

    def begin_anew(
        self, kept: Sequence[Example], held_out: Sequence[Example], positions: Mapping[str, str]
    ) -> None:
        """Plan to learn ``kept`` (the reservoir) from nothing, before anything is offered again.

        ``positions`` are those up to which the task's pairs had been taken.  The kept sources tell at once
        whether the task reads an unknown script and needs the whole depth.
        """
        progress = self.progress
        progress.pairs, progress.held_out = len(kept), len(held_out)
        progress.positions = dict(positions)
        if not kept:
            return
        passes = math.ceil(self.config.relearn_passes * len(kept) / self._full_batch)
        progress.relearning = max(self.config.relearn_least_steps, passes)
        sources = [example.source for example in (*kept, *held_out)]
        self.calibration.place = place_of(self.base, sources, at_once=self._full_batch)
        progress.unknown = fmean(self._strange(example) for example in kept)
        if len(kept) >= FIRST_LOOK_PAIRS and progress.unknown >= self.config.growth_unknown_share:
            self._deepen()

    def step(
        self,
        step: int,
        fresh: Sequence[Example],
        learn: Sequence[bool],
        replay: Sequence[Example],
    ) -> StepReport:
        """Score ``fresh``, then train on those marked in ``learn`` and on ``replay``; becomes ``step``."""
        progress, grown = self.progress, self._grow_by_need()
        batch = [*fresh, *replay]
        learnt = [e for e, on in zip(batch, [*learn, *[True] * len(replay)], strict=True) if on]
        self.calibration.admit(e.target for e in learnt)
        self.calibration.admit_sources(e.source for e in learnt)
        distances = self._place(fresh)
        self._grow_averages()
        self.optimizer.leaves(self.calibration.tensors)
        teaching = self.strategy.objective.teaching(self, replay)
        if teaching:
            teaching = replace(teaching, said=[*[None] * len(fresh), *teaching.said])
        reading = self.study.read(
            self.calibration,
            [e.source for e in batch],
            [e.target for e in batch],
            smoothing=self.config.label_smoothing,
        )
        plain, tokens = reading.plain.tolist(), reading.tokens.int().tolist()
        scores = [Score(plain[at], tokens[at], reading.exact[at]) for at in range(len(fresh))]
        progress.schedule += 1
        progress.warmed += 1
        drift, changed = self._score(fresh, scores, distances)
        on = torch.tensor([*learn, *[True] * len(replay)], dtype=torch.float32)
        before = torch.tensor([regime.is_before(progress, example) for example in batch])
        pull = self._pull(reading, on, before)
        loss = (reading.losses.detach() * pull).sum().item()
        notes = self.strategy.objective.notes(self, reading, batch)
        skipped = self._train(reading, pull, loss, teaching) if on.any() else ""
        progress.parent, progress.step = progress.step, step
        progress.pairs += sum(learn)
        progress.held_out += len(fresh) - sum(learn)
        progress.skipped += bool(skipped)
        progress.relearning = max(0, progress.relearning - 1)
        return StepReport(scores, loss, skipped, drift, grown, changed, notes)

    def _place(self, fresh: Sequence[Example]) -> list[float | None]:
        """Fold new sources into the task's place; how far each lay from where it was, if it was one."""
        if not fresh:
            return []
        place = self.calibration.place
        found = self.study.features(self.calibration, [e.source for e in fresh])
        self.calibration.place = place.with_sources(found)
        placed = place.sources >= FEWEST_SOURCES
        return list(place.distances(found)) if placed else [None] * len(fresh)

    def _score(
        self, fresh: Sequence[Example], scores: Sequence[Score], distances: Sequence[float | None]
    ) -> tuple[bool, dict[str, int]]:
        """Fold prequential scores into the fading means and the monitors; what these say.

        That is whether a drift began, and other signals that changed and how many pairs ago.
        """
        progress, drift, changed = self.progress, False, dict[str, int]()
        for example, score, distance in zip(fresh, scores, distances, strict=True):
            a_token = score.loss / score.tokens
            progress.scored += 1
            weight = max(1 - FADE, 1 / progress.scored)
            progress.prequential_loss += weight * (a_token - progress.prequential_loss)
            progress.prequential_exact += weight * (score.exact - progress.prequential_exact)
            progress.unknown += weight * (self._strange(example) - progress.unknown)
            plateau.look(progress)
            regime.note(progress, example)
            if math.isfinite(a_token) and (ago := self.drift.update(a_token)):
                drift |= regime.begin(progress, ago)
            values = observed(example, score, distance, self.base.vocabulary)
            changed |= self.signals.update(values)
        return drift, changed

    @property
    def statistics(self) -> dict[str, float]:
        """Signal -> its mean in the detector's window."""
        return {LOSS: self.drift.statistic, **self.signals.statistics}

    @property
    def changed_since(self) -> dict[str, int]:
        """Signals that have changed -> pairs scored since the last change of each began."""
        drifted = {LOSS: self.progress.since_drift} if self.progress.drifted else {}
        return drifted | self.signals.since

    def _pull(self, reading: Reading, on: Tensor, before: Tensor) -> Tensor:
        """How much of each pair's loss counts ``[B]``, so that their sum is the loss a token.

        Rows that are not ``on [B]`` do not; one above the clip pulls no harder than one at it; ``before
        [B]`` marks pairs from before the last drift: they count as far as they are still true.
        """
        a_token = reading.losses.detach() / reading.tokens
        pull = (self.config.loss_clip / a_token).clamp(max=1.0)
        on = on * regime.trust(self.progress, a_token, before)
        return pull * on / (reading.tokens * on).sum().clamp(min=1)

    def _train(self, reading: Reading, pull: Tensor, loss: float, teaching: Teaching | None) -> str:
        """One optimizer step; returns why it was skipped, or nothing."""
        self.optimizer.clear()
        if not math.isfinite(loss):
            return "loss"
        reading.gradients(pull, teaching)
        self.strategy.objective.pull(self)
        leaves = list(self.calibration.tensors.values())
        norm = torch.nn.utils.clip_grad_norm_(leaves, self.config.norm_cap)
        if not torch.isfinite(norm):
            self.optimizer.clear()
            return "gradient"
        self.optimizer.step(self.rate())
        self.strategy.averaging.update(self)
        return ""

    def rate(self) -> float:
        """The share of the learning rate that the step in hand takes."""
        c, at = self.config, self.progress.schedule
        warm = min(1.0, self.progress.warmed / c.warmup_steps)
        if self.adapts:
            return warm * c.drift_rate
        return warm * max(
            c.floor_ratio, math.sqrt(c.decay_after_steps / max(at, c.decay_after_steps))
        )

    def _grow_averages(self) -> None:
        for average in self.averages.values():
            for name, want in self.calibration.tensors.items():
                have = average.get(name, want.detach()[:0])
                if have.shape != want.shape:
                    average[name] = torch.cat([have, want.detach()[have.shape[0] :]])

    def _strange(self, example: Example) -> bool:
        """Whether the source holds a character that the base does not know."""
        return any(c not in self.base.vocabulary for c in example.source)

    def _grow_by_need(self) -> str:
        """Calibrate more layers once the task needs it; returns why."""
        if self.calibration.config.encoder_layers == self.base.config.encoder_layers:
            return ""
        why = need_to_grow(self.progress, self.config)
        return why if why and self._deepen() else ""

    def _deepen(self) -> bool:
        """Calibrate as many layers as leave a snapshot room for own rows; returns whether those are more."""
        have, rows = self.calibration.config, self.calibration.owned_rows
        for layers in range(self.base.config.encoder_layers, have.encoder_layers, -1):
            shape = roomy(
                self.base, replace(have, encoder_layers=layers), self.config.growth_max_bytes
            )
            if max(rows, LEAST_ROWS) < shape.most_rows:
                self.grow(shape)
                return True
        return False

    def grow(self, shape: CalibrationConfig) -> None:
        """Calibrate more (`growth.grow`): no output changes, and what was learnt goes on being learnt.

        The step size warms up again: at its full size, parts without moments unsettle the others (French
        pronunciation, grown after 908 pairs; prequential from pair 1,000 to 1,500: 64 %, with a warm-up
        70 %, ungrown 69 %; one run each).
        """
        seed = _seed(self.config.seed, f"{self.task}:{self.progress.step}")
        self.averages = {
            kind: grow(self.holding(average), shape, seed=seed).tensors
            for kind, average in self.averages.items()
        }
        self.calibration = grow(self.calibration, shape, seed=seed)
        self.progress.warmed = 0
        self.optimizer.leaves(self.calibration.tensors)

    def size(self) -> dict[str, float]:
        """The calibration's shape, and its numbers in percent of the base's."""
        c = self.calibration
        return asdict(c.config) | {"percent_of_base": round(100 * c.share_of_base, 1)}

    def payload(self) -> bytes:
        """The int8 candidate: the averaged calibration."""
        return self.averaged().to_payload(self.base.digest)

    def alternative(self) -> bytes | None:
        """Bytes that the strategy would rather offer, if they do no worse on the held-out pairs."""
        tensors = self.strategy.averaging.alternative(self)
        return self.holding(tensors).to_payload(self.base.digest) if tensors else None

    def averaged(self) -> Calibration:
        """The averaged calibration as it is held, in fp32; what is offered is its int8 bytes."""
        return self.holding(self.averages[self.strategy.averaging.offered])

    def holding(self, tensors: dict[str, Tensor]) -> Calibration:
        """The task's calibration with other numbers."""
        c = self.calibration
        return Calibration(
            self.base.model,
            self.base.vocabulary,
            c.config,
            tensors=tensors,
            owned=c.owned,
            place=c.place,
        )

    # --- checkpoint --------------------------------------------------------------------------------

    def to_checkpoint(self) -> bytes:
        """Everything needed to go on bit for bit: tensors, averages, moments, progress, drift.

        Each kind is one flat vector, in the calibration's order: fifty tensors cost fifty times as much.
        """
        c = self.calibration
        kinds = {"own": c.tensors, **self.averages, **self.optimizer.state()}
        flat = {
            kind: torch.cat([t.detach().flatten() for t in tensors.values()]).numpy()
            for kind, tensors in kinds.items()
        }
        flat[PLACE] = c.place.moments.numpy()
        kept, flat[SIGNALS] = self.signals.to_state()
        header = {
            "format": CHECKPOINT_FORMAT,
            "base": self.base.digest,
            "shape": asdict(c.config),
            **c.owned.to_header(),
            "sources": c.place.sources,
            "features": FEATURES,
            "optimizer_steps": self.optimizer.count,
            "drift_losses": self.drift.values,
            "signals": kept,
            "progress": asdict(self.progress),
        }
        if self.notes:
            header["strategy"] = self.notes
        return save(flat, metadata={"header": json.dumps(header, sort_keys=True)})

    @classmethod
    def from_checkpoint(
        cls, data: bytes, base: Base, task: str, config: LearningSettings, study: Study
    ) -> TaskLearner:
        """Resume; raises StateVersionError when the checkpoint is of another base or format."""
        header = read_header(data)
        if header["format"] != CHECKPOINT_FORMAT or header["base"] != base.digest:
            raise StateVersionError(
                f"the checkpoint of task {task} belongs to base {header['base'][:12]}, this one is "
                f"{base.digest[:12]}: start with the base it was learnt on, or change it with "
                "`edgeseq base change`"
            )
        learner = cls(base, task, config, study)
        learner.calibration = Calibration(
            base.model,
            base.vocabulary,
            CalibrationConfig(**header["shape"]),
            owned=Owned.of_header(header),
        )
        shapes = {name: t.shape for name, t in learner.calibration.tensors.items()}
        flat = load(data)
        moments = flat.pop(PLACE, None)  # not in checkpoints of before
        if moments is not None and header.get("features") == FEATURES:
            learner.calibration.place = Place(header["sources"], torch.from_numpy(moments))
        watched = flat.pop(SIGNALS, None)  # nor is this
        if watched is not None:
            learner.signals.restore(header["signals"], watched)
        kinds = {kind: _unflatten(vector, shapes) for kind, vector in flat.items()}
        learner.calibration.tensors = kinds.pop("own")
        wanted = learner.strategy.averaging.kinds
        if all(kind in kinds for kind in wanted):
            learner.notes = header.get("strategy", {})
        learner.averages = {  # one that this strategy has and the last one had not begins as theirs
            kind: kinds.get(kind) or {n: t.clone() for n, t in kinds[AVERAGE].items()}
            for kind in wanted
        }
        learner.optimizer.load(kinds, header["optimizer_steps"])
        learner.drift = DriftMonitor(delta=config.drift_delta, values=header["drift_losses"])
        learner.progress = Progress(**header["progress"])
        return learner


def _unflatten(vector: NDArray[np.float32], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    pieces = torch.split(torch.from_numpy(vector), [shape.numel() for shape in shapes.values()])
    return {n: p.reshape(s).clone() for (n, s), p in zip(shapes.items(), pieces, strict=True)}


def _seed(seed: int, task: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{task}".encode()).digest()[:4], "big")
