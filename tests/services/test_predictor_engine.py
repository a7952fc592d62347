"""Which engine a predictor gets, by setting and by what its base needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine
from edgeseq_core.settings import load_settings
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.predictor import UNPACKED_BUDGET_BYTES, budget_bytes, load_engine
from tests.contract.engines import INSTRUCTIONS


def test_the_native_engine_serves_what_it_can_and_pytorch_the_rest(tmp_path: Path) -> None:
    plain = write_tiny_base(tmp_path / "plain.safetensors")
    other = write_tiny_base(tmp_path / "other.safetensors", norm="post-layer")
    with capture_logs() as logs:
        engine = load_engine(load_settings(base={"path": plain}))
        assert isinstance(engine, NativeEngine if INSTRUCTIONS else TorchEngine)
        assert bool(logs) != bool(INSTRUCTIONS)
    with capture_logs() as logs:
        assert isinstance(load_engine(load_settings(base={"path": other})), TorchEngine)
    assert len(logs) == 1
    chosen = load_settings(base={"path": plain}, predictor={"engine": "torch"})
    assert isinstance(load_engine(chosen), TorchEngine)
    with pytest.raises(ConfigError):
        load_engine(load_settings(base={"path": other}, predictor={"engine": "native"}))


def test_tasks_get_the_memory_that_is_set_and_more_by_default_where_they_need_it(
    tmp_path: Path,
) -> None:
    base = {"path": write_tiny_base(tmp_path / "plain.safetensors")}
    for kind in ("native", "torch") if INSTRUCTIONS else ("torch",):
        default = load_settings(base=base, predictor={"engine": kind})
        engine = load_engine(default)
        own = default.predictor.tasks_budget_bytes if kind == "native" else UNPACKED_BUDGET_BYTES
        assert budget_bytes(default, engine) == own
        chosen = load_settings(predictor={"engine": kind, "tasks_budget_bytes": 5})
        assert budget_bytes(chosen, engine) == 5
