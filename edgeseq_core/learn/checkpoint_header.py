"""What a learner's checkpoint says of itself, read without PyTorch."""

from __future__ import annotations

import json
from typing import Any


def read_header(checkpoint: bytes) -> dict[str, Any]:
    """The header that `TaskLearner.to_checkpoint` wrote; none of its tensors."""
    length = int.from_bytes(checkpoint[:8], "little")
    header: dict[str, Any] = json.loads(
        json.loads(checkpoint[8 : 8 + length])["__metadata__"]["header"]
    )
    return header
