"""A small base, and a learner in one process whose time stands still."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeseq_core.model.base import Base
from edgeseq_core.testing.base import tiny_base


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As services compute; more would give up bit-for-bit repeatability."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder: Path = tmp_path_factory.mktemp("base")
    return tiny_base(folder)
