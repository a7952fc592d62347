"""The parts by the names that settings have for them."""

from __future__ import annotations

from collections.abc import Mapping

from edgeseq_core.learn.strategies.anchor import Anchor
from edgeseq_core.learn.strategies.balanced import BalancedReplay
from edgeseq_core.learn.strategies.consistency import Consistency
from edgeseq_core.learn.strategies.dark_replay import DarkReplay
from edgeseq_core.learn.strategies.distillation import Distillation
from edgeseq_core.learn.strategies.ema import MovingAverage
from edgeseq_core.learn.strategies.ema_pair import EmaPair
from edgeseq_core.learn.strategies.loss_replay import LossReplay
from edgeseq_core.learn.strategies.mir import InterferedReplay
from edgeseq_core.learn.strategies.plain import Plain
from edgeseq_core.learn.strategies.protocol import Averaging, Objective, ReplayRule, Strategy
from edgeseq_core.learn.strategies.reservoir import ReservoirReplay
from edgeseq_core.learn.strategies.snapshot_mean import SnapshotMean
from edgeseq_core.settings import (
    AverageChoice,
    LearningSettings,
    ObjectiveChoice,
    ReplayChoice,
)

REPLAY: Mapping[ReplayChoice, ReplayRule] = {
    "reservoir": ReservoirReplay(),
    "balanced": BalancedReplay(),
    "loss": LossReplay(),
    "mir": InterferedReplay(),
}
OBJECTIVES: Mapping[ObjectiveChoice, Objective] = {
    "plain": Plain(),
    "anchor": Anchor(),
    "distillation": Distillation(),
    "consistency": Consistency(),
    "dark-replay": DarkReplay(),
}
AVERAGES: Mapping[AverageChoice, Averaging] = {
    "ema": MovingAverage(),
    "ema-pair": EmaPair(),
    "snapshots": SnapshotMean(),
}


def strategy_of(config: LearningSettings) -> Strategy:
    """What the settings name."""
    return Strategy(REPLAY[config.replay], OBJECTIVES[config.objective], AVERAGES[config.average])
