"""Two defects of kafka-python 3.0.12, and how to live with them.

Both leave a consumer standing still without an error.  Each function touches private parts, and does
nothing where a later version has none of that name; tests on real brokers show that both are needed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition

log = structlog.get_logger(__name__)


def resume(consumer: KafkaConsumer, partitions: Collection[TopicPartition]) -> None:
    """Resume paused partitions, so that they are read again.

    kafka-python parks the rest of a fetch when its partition is paused, and takes it up again only
    while no other partition's fetch is at hand, which on a broker that answers empty fetches is
    never.  What is parked is dropped here, and fetched again.
    """
    parked = getattr(getattr(consumer, "_fetcher", None), "_paused_partition_records", {})
    for partition in partitions:
        if parked.pop(partition, None) is not None:
            consumer.seek(partition, consumer.position(partition))
    consumer.resume(*partitions)


def finish_join(consumer: KafkaConsumer) -> None:
    """Call after each poll of a group's member, so that a join that outlasted the poll is completed.

    The leader of a group rejoins when the topics' metadata changed.  Should its poll time out before
    the group answers, the metadata no longer differ at the next poll, which then sees no need to
    rejoin: the answer is never taken up, heartbeats stay off, and the member owns nothing for good.
    """
    coordinator: Any = getattr(consumer, "_coordinator", None)
    if getattr(coordinator, "rejoining", False) and not coordinator.need_rejoin():
        log.debug("join_taken_up_again")
        coordinator.request_rejoin()


def forget_end(consumer: KafkaConsumer, partition: TopicPartition) -> None:
    """Make `highwater` unknown until the next fetch; kafka-python keeps it over a seek or a pause.

    What another owner has placed meanwhile lies behind the end this consumer saw last, and would look
    as if the log had lost it.
    """
    state = consumer._subscription.assignment.get(partition)
    if state is not None:
        state.highwater = None
