"""What a measurement ran on, as Linux tells it."""

from __future__ import annotations

import sys
import time

import pytest

from edgeseq_core.evaluate.machine import busy_cpu_s, cpu_name, has_avx512
from edgeseq_core.native.engine import native


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_work_of_this_process_counts() -> None:
    before, own = busy_cpu_s(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    assert busy_cpu_s() - before >= 0.25  # of ticks of 10 ms


def test_the_cpu_has_a_name_and_what_the_engine_found() -> None:
    assert cpu_name()
    if native is not None and "avx512" in native.instruction_sets():
        assert has_avx512()
