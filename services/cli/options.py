"""Options that many commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from edgeseq_core.client import Client
    from edgeseq_core.settings import Settings

RUN = Group("Run", sort_key=1)
USE = Group("Teach and ask", sort_key=2)
OPERATE = Group("Operate", sort_key=3)
RESEARCH = Group("Without servers", sort_key=4)
CONNECTION = Group("Connection", sort_key=9)
OUTPUT = Group("Output", sort_key=8)

Task = Annotated[str, Parameter(help="Name of the task.")]
JsonFlag = Annotated[
    bool,
    Parameter(
        name="--json",
        negative="",
        show_default=False,
        group=OUTPUT,
        help="Print JSON: one document, or one object a line where there are many.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Format:
    """How a command prints."""

    as_json: JsonFlag = False


@Parameter(name="*")
@dataclass(frozen=True)
class Common(Format):
    """How a command prints, and which instance it speaks to."""

    dir: Annotated[
        Path | None,
        Parameter(
            group=CONNECTION,
            help="State folder of the running `edgeseq up` (default: EDGESEQ_DIR or ./.edgeseq).",
        ),
    ] = None
    kafka: Annotated[
        str | None, Parameter(group=CONNECTION, help="Kafka broker, HOST:PORT; overrides --dir.")
    ] = None
    redis: Annotated[
        str | None, Parameter(group=CONNECTION, help="Redis URL; overrides --dir.")
    ] = None

    def settings(self) -> Settings:
        """Settings of the instance that is meant; raises ConfigError when --dir names none."""
        from edgeseq_core.errors import ConfigError

        from ..state_dir import StateDir, client_settings

        if self.dir is not None and self.kafka is None and StateDir(self.dir).endpoints() is None:
            raise ConfigError(
                f"no `edgeseq up` runs in {self.dir}; start one with `edgeseq up --dir {self.dir}`"
            )
        flags: dict[str, dict[str, object]] = {}
        if self.kafka is not None:
            flags["kafka"] = {"bootstrap": self.kafka}
        if self.redis is not None:
            flags["redis"] = {"url": self.redis}
        return client_settings(self.dir, **flags)

    def client(self, producer: str | None = None) -> Client:
        """A client of that instance; retries are told by their outcome, not by log lines."""
        import stamina.instrumentation

        from edgeseq_core.client import Client

        stamina.instrumentation.set_on_retry_hooks([])
        kafka = self.settings().kafka
        if producer is None:
            return Client(settings=kafka)
        return Client(settings=kafka, producer=producer)
