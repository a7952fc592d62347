"""Rules that both stores follow, so that they cannot drift apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import (
    FRESH_PARTS,
    HeldBack,
    IncomingPair,
    PairState,
    Part,
    StepCommit,
)
from edgeseq_core.replay.record import unpack_held

SEQUENCED_PARTS: tuple[Part, ...] = ("corrections", "bulk", "recent")  # in order of entry
PRIORITY_PARTS: tuple[Part, ...] = ("probe", "reservoir")  # in order of priority

# A larger record than this part of the reservoir's budget is learnt, but never kept: it would crowd
# out the sample.
LARGEST_SHARE = 4

# States in which the same pair id is a repetition; a shed or dead-lettered pair may be sent again.
REMEMBERED: frozenset[PairState] = frozenset(
    {"waiting", "held_out", "trained", "forgotten", "quarantined"}
)


@dataclass(frozen=True, kw_only=True)
class StoreLimits:
    """What bounds a store, per partition; equal for the twin and Redis."""

    id_window_s: int = 86_400  # how long a pair id is remembered after it came in
    id_window_pairs: int = 200_000  # and how many are
    auto_register: bool = True  # a new task registers itself on its first valid pair
    max_tasks: int = 1000
    quarantine_bytes: int = 8 << 20
    memory_bytes: int = 1 << 20  # of a task's corrections; the oldest go first


def state_in(part: Part) -> PairState:
    """What a pair is while (or since) it is in a part."""
    if part in FRESH_PARTS:
        return "waiting"
    return "trained" if part == "reservoir" else "held_out"


def held_of(task: str, quarantine: Mapping[bytes, bytes]) -> list[HeldBack]:
    """The pairs of a task that a change of base holds, in the order of their keys."""
    found = ((field, unpack_held(data)) for field, data in quarantine.items())
    held = [HeldBack(one[1], field, one[2]) for field, one in found if one and one[0] == task]
    return sorted(held, key=lambda pair: pair.key)


def forget_at_once(pairs: int) -> int:
    """How many expired pair ids one call may drop, so that no call takes long."""
    return 2 * pairs + 100


def check_moves(commit: StepCommit) -> None:
    """ValueError for moves that no learner may ask for, whatever the store holds."""
    keys = {move.key for move in commit.moves}
    if len(keys) != len(commit.moves):
        raise ValueError(f"step {commit.step} of task {commit.task} moves a pair twice")
    for move in commit.moves:
        if move.destination in FRESH_PARTS or move.origin == "reservoir":
            raise ValueError(f"no pair moves from {move.origin} to {move.destination}")
        if move.note and move.destination != "reservoir":
            raise ValueError(f"pair {move.key} has a note, but does not move to the reservoir")
        if move.destination in PRIORITY_PARTS and not 0 <= move.priority < 1:
            raise ValueError(f"pair {move.key} has priority {move.priority}, not one in [0, 1)")


def check_partition(pairs: list[IncomingPair], partition: int, partitions: int) -> None:
    """ValueError when a pair's task belongs to another partition: nobody would find its pairs."""
    for task in {pair.task for pair in pairs}:
        if (owner := partition_of(task, partitions)) != partition:
            raise ValueError(f"task {task} belongs to partition {owner}, not {partition}")
