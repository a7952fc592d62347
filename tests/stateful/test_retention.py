"""Twin and server keep the same snapshots, whatever the times of promotions and people's choices."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.contract.stores import NOW_MS, TASK, Stores, memory_stores, redis_stores
from tests.snapshots.test_payloads import gaps

EVENTS = ("promote", "promote", "promote", "promote", "hold", "reference", "choose", "roll back")
histories = st.lists(
    st.tuples(st.sampled_from(EVENTS), gaps, st.integers(0, 20)), min_size=10, max_size=50
)


@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_twin_and_server_keep_the_same(request: pytest.FixtureRequest, server: str) -> None:
    url = request.getfixturevalue(f"{server}_url")

    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(history=histories)
    def check(history: list[tuple[str, int, int]]) -> None:
        both = memory_stores(), redis_stores(url, secrets.token_hex(6))
        at_ms = NOW_MS
        for event, gap_ms, pick in history:
            at_ms += gap_ms
            twin, real = (_after(stores, event, at_ms, pick) for stores in both)
            assert twin == real

    check()


def _after(stores: Stores, event: str, at_ms: int, pick: int) -> object:
    """What is kept after an event; ``pick`` chooses among the promoted snapshots that are kept."""
    kept = stores.kept()
    served = [s for s in kept if stores.registry.record(TASK, s).promoted_ms is not None]
    if event in ("choose", "roll back"):
        move = stores.registry.promote if event == "choose" else stores.registry.rollback
        if served:
            move(
                TASK,
                served[pick % len(served)],
                expected_champion=stores.registry.status(TASK).champion,
                now_ms=at_ms,
                journal="{}",
            )
    else:
        reference = served[pick % len(served)] if served and event == "reference" else None
        stores.registry.pin(TASK, False, now_ms=at_ms, journal="{}")
        verdict = "hold" if event == "hold" else "promote"
        stores.serve_step(at_ms=at_ms, verdict=verdict, reference=reference)
    champion = stores.registry.status(TASK).champion
    assert champion is None or champion in stores.kept()
    return stores.kept(), stores.registry.status(TASK), stores.buffer.state(TASK)
