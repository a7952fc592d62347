"""The predictor service with the fake engine, for tests that kill it."""

from __future__ import annotations

import os
import sys
import time

from edgeseq_core.settings import Settings
from edgeseq_core.testing.engine import FakeEngine
from edgeseq_services.predictor import main


def load(_settings: Settings) -> FakeEngine:
    """An engine that takes its time for every token."""
    token_s = int(os.environ["FAKE_TOKEN_MS"]) / 1000
    return FakeEngine(before_token=lambda _row, _step: time.sleep(token_s))


if __name__ == "__main__":
    sys.exit(main(load))
