"""Every error EdgeSeq raises on purpose, in one tree.

EdgeSeqError
├── ConfigError              a setting is missing, wrong or contradicts another
│   ├── MissingExtraError    an optional package is not installed
│   └── StateVersionError    stored state was written by an unknown version
├── InputError               what a producer or a client sent cannot be used (final, never retried)
│   ├── MessageError         bytes that are no valid message (carries the dead letter's reason)
│   └── RequestError         a request that gets a typed error reply
├── StoreError               the Redis store refused or could not be reached
│   ├── StoreUnavailableError    no connection (retryable)
│   ├── StoreFullError           out of memory: back-pressure (retryable)
│   └── FencedError              the caller's epoch or expected value is stale
├── BrokerError              the Kafka broker refused or could not be reached
│   ├── BrokerUnavailableError   no connection (retryable)
│   └── NoReplyError             a request was sent, but no reply came in time (retryable)
├── SnapshotError            a snapshot's bytes do not match their manifest, or it is unknown
└── ServiceError             a child process or a port of the embedded default failed

Each message is one sentence: what, where, what to do.  ``retryable`` says whether the same call may
succeed later without a change by anyone.
"""

from __future__ import annotations

from typing import ClassVar


class EdgeSeqError(Exception):
    """The base of all errors that EdgeSeq raises on purpose."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class ConfigError(EdgeSeqError):
    """A setting is missing, wrong or contradicts another."""

    exit_code = 2


class MissingExtraError(ConfigError):
    """An optional package is not installed."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} is not installed; {remedy}")


class MissingDataError(ConfigError):
    """Data that no package has is not where it was looked for."""


class StateVersionError(ConfigError):
    """Stored state was written by a version this one does not know."""


class InputError(EdgeSeqError):
    """What a producer or a client sent cannot be used; sending it again will not help."""


class MessageError(InputError):
    """Bytes that are no valid message; ``reason`` is the dead letter's reason code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RequestError(InputError):
    """A request that is answered by a typed error reply; ``code`` is the reply's error code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class StoreError(EdgeSeqError):
    """The Redis store refused a call or could not be reached."""


class StoreUnavailableError(StoreError):
    """The Redis store could not be reached."""

    retryable = True


class StoreFullError(StoreError):
    """The Redis store is out of memory: wait, nothing was written."""

    retryable = True


class FencedError(StoreError):
    """The caller's epoch or the value it expected is stale: another owner has moved on."""


class BrokerError(EdgeSeqError):
    """The Kafka broker refused a call or could not be reached."""


class BrokerUnavailableError(BrokerError):
    """The Kafka broker could not be reached."""

    retryable = True


class NoReplyError(BrokerError):
    """A request was sent, but no reply came in time; ``code`` stands where a reply's would."""

    retryable = True
    code = "no_reply"


class SnapshotError(EdgeSeqError):
    """A snapshot is unknown, or its bytes do not match its manifest."""


class ServiceError(EdgeSeqError):
    """A child process or a port of the embedded default failed."""
