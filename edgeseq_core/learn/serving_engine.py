"""Which engine scores for the gate, and answers offline: the one that would serve."""

from __future__ import annotations

from edgeseq_core.engine import Engine
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import SourceEncoder
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine, why_not
from edgeseq_core.settings import EngineChoice


def serving_engine(base: Base, encoder: SourceEncoder, wanted: EngineChoice = "auto") -> Engine:
    """An engine on a base, chosen as a predictor chooses it; ``encoder`` is for PyTorch, which can reuse it.

    Raises ConfigError where the native one is wanted and cannot serve the base.
    """
    # A base that is being made has no int8 file yet: only its fp32 weights can be asked.
    if base.stored is None or wanted == "torch" or (wanted == "auto" and why_not(base.config)):
        return TorchEngine(base, encoder)
    return NativeEngine(base.stored)
