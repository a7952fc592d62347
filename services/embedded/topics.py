"""The embedded broker's topics, with the right partitions whoever asked for them first.

That broker creates any topic a client asks about, with 4 partitions, even if the client forbids it.
After a restart its clients reconnect at once, so wrong topics may stand before ours are created; it
cannot add partitions, so they are deleted.  A record sent in those milliseconds is lost with them, as
the broker's whole memory was just before.
"""

from __future__ import annotations

from edgeseq_core.errors import ConfigError
from edgeseq_core.keys import Topics
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import broker_errors, open_admin
from edgeseq_core.streams.topics import create_topics, topic_specs

_TRIES = 20


def create_on_empty_broker(kafka: KafkaSettings) -> None:
    """Create all topics on a broker that has just started, replacing those with other partitions.

    Only for the embedded broker, whose log is empty then.  Raises BrokerError or ConfigError.
    """
    for attempt in range(_TRIES):
        _delete_wrong(kafka)
        try:
            create_topics(kafka)
        except ConfigError:  # a client was faster between the two
            if attempt == _TRIES - 1:
                raise
        else:
            if not _wrong(kafka):
                return
    raise ConfigError(
        f"clients of {kafka.bootstrap} keep creating topics with other partition counts; "
        "stop those that use other settings"
    )


def _wrong(kafka: KafkaSettings) -> list[str]:
    """Topics of ours that exist with another partition count."""
    wanted = {
        s.name: s.partitions for s in topic_specs(Topics(kafka.topic_prefix), kafka.partitions)
    }
    admin = open_admin(kafka, client_id="edgeseq-up")
    try:
        with broker_errors(kafka, "describing topics"):
            found = {t["name"]: len(t["partitions"]) for t in admin.describe_topics()}
    finally:
        admin.close()
    return [name for name, count in wanted.items() if found.get(name, count) != count]


def _delete_wrong(kafka: KafkaSettings) -> None:
    names = _wrong(kafka)
    if not names:
        return
    admin = open_admin(kafka, client_id="edgeseq-up")
    try:
        with broker_errors(kafka, "replacing topics"):
            admin.delete_topics(names)
    finally:
        admin.close()
