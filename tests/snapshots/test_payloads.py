"""Which promoted snapshots are kept, whatever the times at which they were promoted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.snapshots.payloads import (
    AGE_FACTOR,
    AGE_FLOOR_MS,
    KEPT_PROMOTIONS,
    KEPT_RECENT,
    thinned,
)

DAY_MS = 86_400_000
# Milliseconds between promotions, as likely short as long.
gaps = st.builds(lambda digits, rest: 10**digits + rest, st.integers(0, 8), st.integers(0, 9_999))


def kept_after(
    times_ms: Sequence[int], spared: Sequence[str] = (), most: int = KEPT_PROMOTIONS
) -> list[int]:
    """What is kept of promotions one after the other, by number."""
    kept: dict[str, int] = {}
    for number, at_ms in enumerate(times_ms):
        kept[str(number)] = at_ms
        for dropped in thinned(kept, spared=spared, most=most):
            del kept[dropped]
    return [int(number) for number in kept]


@given(
    steps=st.lists(gaps, min_size=1, max_size=150), spared=st.sets(st.integers(0, 149), max_size=3)
)
def test_what_was_dropped_leaves_no_wide_gap(steps: list[int], spared: set[int]) -> None:
    times = [sum(steps[: at + 1]) for at in range(len(steps))]
    kept = kept_after(times, [str(number) for number in spared], most=len(times))
    assert set(range(len(times))[-KEPT_RECENT:]) | spared & set(range(len(times))) <= {*kept}
    assert kept[0] == 0
    age = [times[-1] - at_ms + AGE_FLOOR_MS for at_ms in times]
    for older, younger in pairwise(kept):
        assert younger == older + 1 or age[older] <= AGE_FACTOR * age[younger]
    free = [number for number in kept[:-KEPT_RECENT] if number not in spared]
    for older, _, younger in zip(free[1:], free[2:], free[3:], strict=False):
        assert age[older] > AGE_FACTOR * age[younger]  # at most two in each tenfold


@given(steps=st.lists(gaps, min_size=1, max_size=150))
def test_few_are_kept_and_they_reach_far_back(steps: list[int]) -> None:
    times = [sum(steps[: at + 1]) for at in range(len(steps))]
    kept = kept_after(times)
    assert len(kept) <= KEPT_PROMOTIONS
    assert kept[0] == 0 or times[-1] - times[kept[0]] > 11 * DAY_MS


def test_a_clock_that_was_wrong_once_does_no_lasting_harm() -> None:
    times = [*range(0, 90_000, 1_000), 10 * 365 * DAY_MS, *range(90_000, 180_000, 1_000)]
    kept = kept_after(times)
    assert 90 not in kept
    assert len([number for number in kept if number > 90]) > KEPT_RECENT
