"""The memory of corrections, as the predictor asks it: once a batch, and only where it is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeseq_core.clock import Clock
from edgeseq_core.replay.buffer import ReplayBuffer
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.serving.patience import Patience

Asked = tuple[str, str]  # task and source


class Recall:
    """Remembered corrections of a batch; without the store there are none. Used by one thread."""

    def __init__(
        self, store: ReplayBuffer, *, is_allowed: Callable[[str], bool], clock: Clock
    ) -> None:
        self._store = store
        self._is_allowed = is_allowed
        self._patience = Patience(clock, lost="corrections are not recalled")

    def __call__(self, asked: Sequence[Asked]) -> dict[Asked, Remembered]:
        """What was told for each; no round trip where no task of the batch has a memory."""
        wanted = [one for one in dict.fromkeys(asked) if self._is_allowed(one[0])]
        if not wanted:
            return {}
        found = self._patience.ask(lambda: self._store.recall(wanted)) or ()
        return {one: told for one, told in zip(wanted, found, strict=False) if told is not None}
