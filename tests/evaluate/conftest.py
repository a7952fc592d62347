"""One tiny base for all tests of methods."""

from __future__ import annotations

import pytest
import torch

from edgeseq_core.model.base import Base
from edgeseq_core.testing.base import tiny_base


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As cells compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), max_tokens=32)
