"""What may be committed: never past a record whose reply is not acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.serving.offsets import OffsetTracker, TopicOffset

PARTITION = ("requests", 3)


def at(offset: int) -> TopicOffset:
    return TopicOffset(*PARTITION, offset)


@given(st.permutations(range(12)))
def test_the_commit_never_passes_an_unsettled_record(order: list[int]) -> None:
    tracker = OffsetTracker()
    offsets = [100 + 2 * n for n in range(12)]  # with gaps, as after compaction
    for offset in offsets:
        tracker.begin(at(offset))
    settled: set[int] = set()
    position = 0
    for n in order:
        tracker.settle(at(offsets[n]))
        settled.add(offsets[n])
        position = tracker.take().get(PARTITION, position)
        first_open = next((o for o in offsets if o not in settled), offsets[-1] + 1)
        assert position <= first_open
        assert all(o in settled for o in offsets if o < position)
    assert position == offsets[-1] + 1
    assert tracker.unsettled() == 0


def test_a_lost_partition_commits_nothing_of_its_past() -> None:
    tracker = OffsetTracker()
    tracker.begin(at(5))
    tracker.settle(at(5))
    tracker.begin(at(6))
    tracker.forget([PARTITION])
    tracker.settle(at(6))
    assert tracker.take() == {}
    tracker.begin(at(6))  # assigned again, read again
    tracker.settle(at(6))
    assert tracker.take() == {PARTITION: 7}
    assert tracker.take() == {}
