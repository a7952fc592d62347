"""The topics a deployment needs, and that those which exist fit."""

from __future__ import annotations

from dataclasses import dataclass

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, for_code

from edgeseq_core.errors import BrokerError, ConfigError
from edgeseq_core.keys import Topics
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import MAX_REQUEST_BYTES, broker_errors, open_admin

REQUEST_PARTITIONS = 8
REPLY_PARTITIONS = 16
AGES = ("retention.ms", "segment.ms")
DEAD_LETTER_RETENTION_MS = 30 * 86_400_000


@dataclass(frozen=True)
class TopicSpec:
    """What a topic must have; ``fixed`` partition counts place tasks and may never differ."""

    name: str
    partitions: int
    fixed: bool
    config: tuple[tuple[str, str], ...] = ()


def topic_specs(topics: Topics, partitions: int) -> list[TopicSpec]:
    """All topics of a deployment."""
    dead_letters = (
        ("max.message.bytes", str(MAX_REQUEST_BYTES)),
        ("retention.ms", str(DEAD_LETTER_RETENTION_MS)),
    )
    return [
        TopicSpec(topics.pairs, partitions, True),
        TopicSpec(topics.feedback, partitions, True),
        TopicSpec(topics.control, partitions, True),
        TopicSpec(topics.requests, REQUEST_PARTITIONS, False),
        TopicSpec(topics.bulk, REQUEST_PARTITIONS, False),
        TopicSpec(topics.replies, REPLY_PARTITIONS, False),
        TopicSpec(topics.dead_letters, 1, False, dead_letters),
    ]


def create_topics(kafka: KafkaSettings, *, timeout_s: float = 15.0) -> list[str]:
    """Create the topics that are missing; returns their names.

    Existing ones are left as they are; raises ConfigError when one that places tasks has another
    partition count than ``kafka.partitions``.
    """
    specs = {s.name: s for s in topic_specs(Topics(kafka.topic_prefix), kafka.partitions)}
    admin = open_admin(kafka, client_id="edgeseq-topics")
    try:
        with broker_errors(kafka, "creating topics"):
            present = {t["name"]: t for t in admin.describe_topics() if not t["error_code"]}
            missing = [s for name, s in specs.items() if name not in present]
            created = [s.name for s in missing if _create(admin, s)]
            admin.wait_for_topics(sorted(specs), timeout_ms=round(timeout_s * 1000))
            present = {t["name"]: t for t in admin.describe_topics(sorted(specs))}
    finally:
        admin.close()
    for spec in specs.values():
        _check(spec, len(present[spec.name]["partitions"]), kafka)
    return created


def kept_ms(kafka: KafkaSettings) -> int | None:
    """How long the broker may keep a pair: retention and the age at which a segment is closed.

    None where it keeps pairs for ever, or cannot be asked (the embedded broker hangs up).
    """
    topics = Topics(kafka.topic_prefix)
    asked = [
        ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(AGES))
        for name in (topics.pairs, topics.feedback)
    ]
    try:
        admin = open_admin(kafka, client_id="edgeseq-topics")
        try:
            with broker_errors(kafka, "asking how long topics are kept"):
                answer = admin.describe_configs(asked, config_filter="all")
        finally:
            admin.close()
    except BrokerError:
        return None
    ages = [
        [int((found.get(name) or {}).get("value") or -1) for name in AGES]
        for topics_of in answer.values()
        for found in topics_of.values()
    ]
    if len(ages) < len(asked) or any(age < 0 for pair in ages for age in pair):
        return None
    return max(map(sum, ages))


def _create(admin: object, spec: TopicSpec) -> bool:
    """Create one topic; False when another process was faster."""
    wanted = {
        "num_partitions": spec.partitions,
        "replication_factor": -1,
        "configs": dict(spec.config),
    }
    answer = admin.create_topics({spec.name: wanted}, raise_errors=False)  # type: ignore[attr-defined]
    code = answer["topics"][0]["error_code"]
    if not code:
        return True
    error = for_code(code)
    if error is TopicAlreadyExistsError:
        return False
    raise BrokerError(f"the broker did not create the topic {spec.name} ({error.__name__})")


def _check(spec: TopicSpec, found: int, kafka: KafkaSettings) -> None:
    if spec.fixed and found != spec.partitions:
        raise ConfigError(
            f"the topic {spec.name} at {kafka.bootstrap} has {found} partitions but "
            f"kafka.partitions is {spec.partitions}; the count places every task and cannot "
            "change: correct the setting or use another topic prefix"
        )
