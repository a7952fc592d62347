"""What the engines are measured on: a base of a preset's shape and calibrations of the shipped one's."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_bytes, write_base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.config import preset
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.text.vocabulary import FIRST_CHARACTER, Vocabulary

VOCABULARY, TASKS = 2_048, 32
BASE, BARE = "base.safetensors", "none"
MOST_TOKENS = 256
NEVER = -100.0  # bias of the end of an answer, so that all answers are equally long
NOISE = 0.01


def write_models(folder: Path, name: str) -> None:
    """A base of random numbers, 32 calibrations, and one (``none``) that only keeps answers from ending."""
    characters = [chr(point) for point in range(32, 127)]
    characters += [chr(0x4E00 + at) for at in range(VOCABULARY - FIRST_CHARACTER - len(characters))]
    vocabulary = Vocabulary(characters)
    config = preset(name, vocabulary_size=len(vocabulary), max_tokens=MOST_TOKENS)
    torch.manual_seed(0)
    tensors = {key: p.detach().numpy() for key, p in EdgeFormer(config).named_parameters()}
    write_base(
        folder / BASE, tensors, config=config, vocabulary=vocabulary, notes={"made_for": "bench"}
    )
    base, draw = Base.load(folder / BASE), torch.Generator().manual_seed(0)
    for task in (*map(str, range(TASKS)), BARE):
        made = unending(base)
        for part in made.tensors if task != BARE else ():
            if part.startswith(("encoder", "decoder")):  # parts of a site, not rows or tokens
                noise = torch.randn(made.tensors[part].shape, generator=draw)
                made.tensors[part] += NOISE * noise
        (folder / f"{task}.calibration").write_bytes(made.to_payload(base.digest))


def write_shipped(folder: Path) -> None:
    """The shipped base, whose answers tell something, and ``none``."""
    header, data = read_bytes(None)
    (folder / BASE).write_bytes(data)
    base = Base.load(folder / BASE)
    (folder / f"{BARE}.calibration").write_bytes(unending(base).to_payload(header.digest))


def unending(base: Base) -> Calibration:
    """A calibration of the shape that a task starts with; it only keeps answers from ending."""
    made = Calibration(base.model, base.vocabulary, CalibrationConfig())
    made.admit(["abcdefghijklmnopqrstuvwxyz"])
    made.tensors["row_bias"][0] = NEVER
    return made
