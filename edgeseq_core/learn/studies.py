"""What computes a learning step: native where it can learn on the base, else PyTorch."""

from __future__ import annotations

from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import SourceEncoder
from edgeseq_core.model.study import Study, TorchStudy
from edgeseq_core.native.learning import NativeStudy, why_not
from edgeseq_core.settings import LearningSettings


def settled(base: Base, config: LearningSettings) -> LearningSettings:
    """The same settings, naming what will compute: bits depend on it, so manifests must name it."""
    if config.engine != "auto":
        return config
    return config.model_copy(update={"engine": "torch" if why_not(base.config) else "native"})


def study_on(base: Base, config: LearningSettings, encoder: SourceEncoder) -> Study:
    """What `settled` settings name; ``encoder`` is for PyTorch.

    Raises ConfigError where the native one is wanted and cannot learn on the base.
    """
    return NativeStudy(base) if config.engine == "native" else TorchStudy(base, encoder)
