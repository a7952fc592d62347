"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from edgeseq_core.evaluate.methods.agem import AveragedGem
from edgeseq_core.evaluate.methods.chosen_replay import InterferedReplay, LossReplay
from edgeseq_core.evaluate.methods.collected import GDumb, JointTraining
from edgeseq_core.evaluate.methods.dark_replay import DarkExperienceReplay
from edgeseq_core.evaluate.methods.ewc import OnlineEwc
from edgeseq_core.evaluate.methods.floor import Floor
from edgeseq_core.evaluate.methods.instances import InstanceAdaptation
from edgeseq_core.evaluate.methods.method import Method, Terms
from edgeseq_core.evaluate.methods.naive import FineTuning
from edgeseq_core.evaluate.methods.product import EdgeSeq
from edgeseq_core.evaluate.methods.replay import ExperienceReplay
from edgeseq_core.evaluate.methods.separate import OneModelPerTask

#: EdgeSeq with another strategy (`learn.strategies`); the bench runs those that are asked for by name.
VARIANTS: Mapping[str, Callable[[Terms], Method]] = {
    "edgeseq-balanced": partial(EdgeSeq, replay="balanced"),
    "edgeseq-loss": partial(EdgeSeq, replay="loss"),
    "edgeseq-mir": partial(EdgeSeq, replay="mir"),
    "edgeseq-anchor": partial(EdgeSeq, objective="anchor"),
    "edgeseq-distillation": partial(EdgeSeq, objective="distillation"),
    "edgeseq-der++": partial(EdgeSeq, objective="dark-replay"),
    "edgeseq-cls-er": partial(EdgeSeq, objective="consistency", average="ema-pair"),
    "edgeseq-snapshots": partial(EdgeSeq, average="snapshots"),
}

METHODS: Mapping[str, Callable[[Terms], Method]] = {
    "edgeseq": EdgeSeq,
    "fine-tuning": FineTuning,
    "er": ExperienceReplay,
    "er-loss": LossReplay,
    "er-mir": InterferedReplay,
    "der++": DarkExperienceReplay,
    "instances": InstanceAdaptation,
    "gdumb": GDumb,
    "a-gem": AveragedGem,
    "ewc": OnlineEwc,
    "separate": OneModelPerTask,
    "joint": JointTraining,
    "suffix-rules": Floor,
    **VARIANTS,
}

#: On a stream of one task they are another method (EWC: fine-tuning, separate: ER), or wait until it ends.
NEED_TASKS = frozenset({"gdumb", "ewc", "separate", "joint"})
