"""Every setting, from flags, environment and a file, in that order of precedence.

``EDGESEQ_<SECTION>__<NAME>`` sets one value, e.g. ``EDGESEQ_KAFKA__BOOTSTRAP=broker:9092``;
``EDGESEQ_CONFIG`` names a TOML file with a table a section.  Units are in the names; ports of 0 let
the system choose.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from edgeseq_core.errors import ConfigError

CONFIG_VARIABLE = "EDGESEQ_CONFIG"

Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Past = Annotated[float, Field(ge=0, lt=1)]  # weight of what was, in a moving average
EngineChoice = Literal["auto", "native", "torch"]  # auto: native where it can serve the base
ReplayChoice = Literal["reservoir", "balanced", "loss", "mir"]
ObjectiveChoice = Literal["plain", "anchor", "distillation", "consistency", "dark-replay"]
AverageChoice = Literal["ema", "ema-pair", "snapshots"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_PASSWORD = re.compile(r"(?<=://)([^/@]*:)?[^/@]*(?=@)")


class Section(BaseModel):
    """A group of settings; an unknown name in it is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """Where the broker is, and how to talk to it."""

    bootstrap: str = "127.0.0.1:9092"
    topic_prefix: Name = "edgeseq"
    partitions: Annotated[int, Field(gt=0, le=1_000)] = 8  # fixed for good
    session_timeout_ms: Positive = 6_000
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None


class RedisSettings(Section):
    """Where the store is; ``declared_policy`` is for servers that forbid ``CONFIG GET``."""

    url: str = Field("redis://127.0.0.1:6379/0", repr=False)
    key_prefix: Name = "edgeseq"
    declared_policy: Literal["noeviction"] | None = None


class BaseModelSettings(Section):
    """The base that every service loads; None is the one that ships with the package."""

    path: Path | None = None


class ConsumerSettings(Section):
    """Kafka to the fresh part."""

    max_batch: Positive = 500
    fresh_budget_bytes: Positive = 64 << 20
    auto_register: bool = True
    max_tasks: Positive = 1_000
    id_window_s: Positive = 86_400
    id_window_pairs: Positive = 200_000
    max_message_bytes: Positive = 65_536
    future_clock_ms: Positive = 300_000
    http_port: Port = 9101


class LearnerSettings(Section):
    """Fresh part to snapshots; ``learning`` holds what shapes them."""

    threads: Positive = 1  # more than one gives up bit-for-bit repeatability
    partitions: tuple[int, ...] | None = None  # that this learner owns; None: all
    http_port: Port = 9102


class StrategySettings(Section):
    """How a task learns (docs/streams.md, "Strategies")."""

    replay: ReplayChoice = "reservoir"  # which pairs a step replays
    replay_candidates: Positive = 3  # drawn for each of them, where a rule chooses
    objective: ObjectiveChoice = "plain"  # what is added to the loss
    anchor_strength: Weight = 0.01  # of the pull to the champion's numbers
    teacher_weight: Weight = 0.5  # of the divergence from what a teacher says, beside the loss
    teacher_top: Annotated[int, Field(gt=0, le=64)] = 8  # symbols of a token that it names
    average: AverageChoice = "ema"  # what is offered to the gate
    stable_averaging: Past = 0.95  # weight of the past in the slower average of ema-pair
    averaged_champions: Positive = 4  # whose mean may be offered, the candidate included

    @model_validator(mode="after")
    def _fits(self) -> StrategySettings:
        if self.objective == "consistency" and self.average != "ema-pair":
            raise ValueError("objective consistency needs average ema-pair, its two teachers")
        return self


class LearningSettings(StrategySettings):
    """What shapes learning and its gate: all that a snapshot's content depends on, kept in its manifest."""

    engine: EngineChoice = "auto"  # computes the steps; what auto settled on is in the manifests
    seed: int = 1
    rank: int = 8
    encoder_layers: int = 1  # calibrated at first, counted from the top; all once a task needs it
    growth_look_pairs: Positive = 200  # scored between two looks whether a task needs it
    growth_below_exact: float = 0.9  # prequential answers right; with more a task stays as it is
    growth_least_gain: float = 0.0  # of the loss between two looks; less is a plateau; 0: never
    growth_unknown_share: float = (
        0.5  # of sources with characters unknown to the base: no plateau needed
    )
    growth_max_bytes: int = 256 << 10  # of a snapshot; growth stops short of it

    fresh_per_step: int = 32  # pairs
    replay_per_step: int = 32
    rehearsals_per_step: int = (
        8  # replay-only steps while nothing waits, for each step with fresh pairs
    )

    relearn_passes: int = 8  # over the reservoir, where a task begins anew
    relearn_least_steps: int = 60

    learning_rate: float = 1.2e-2
    warmup_steps: int = 20
    decay_after_steps: int = 100  # then ~ 1/sqrt(steps), down to the floor
    floor_ratio: float = 0.2
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    loss_clip: float = 6.0  # nats a token; a pair above it pulls no harder than one at it
    norm_cap: float = 1.0  # of the gradient
    averaging: float = (
        0.8  # weight of the past in the averaged calibration that is offered; 0: none
    )

    held_out_share: float = 0.05  # of all pairs at most; corrections never
    recent_pairs: int = 32
    probe_pairs: int = 32
    gate_interval_s: float = 1.0  # at most one candidate in this time while pairs wait
    gate_loss_clip: float = 2.0  # nats a token; what a held-out pair can say against a candidate
    gate_loss_slack: float = 0.1  # nats a token a candidate may be worse than the reference
    gate_answer_slack: float = 0.25  # share of the probability of the right answers
    gate_exact_slack: float = 0.04  # share of held-out pairs
    gate_min_pairs: int = 8  # fewer held-out pairs: what was just learnt is scored as well
    gate_drift_gain: float = (
        0.1  # probability of the right answer, to be clearly better since a drift
    )
    drift_delta: float = 0.002  # ADWIN's confidence
    drift_adapt_pairs: int = 300  # since a drift began: only pairs since then are replayed
    drift_rehearsals: int = 14  # in place of rehearsals_per_step, meanwhile
    drift_rate: float = 0.6  # of the learning rate, meanwhile
    drift_held_out_share: float = 0.2  # of bulk pairs, until the gate has gate_min_pairs since then

    def in_manifest(self) -> dict[str, Any]:
        """All values by name, but those of strategies that are the defaults: ids stay what they were."""
        values = self.model_dump(mode="json")
        for name, field in StrategySettings.model_fields.items():
            if values[name] == field.default:
                del values[name]
        return values


class PredictorSettings(Section):
    """Requests to replies."""

    engine: EngineChoice = "auto"  # the learner's gate scores with the same one
    instructions: str | None = None  # of the native engine; None: the best that the CPU has
    threads: Positive | Literal["auto"] = 1  # auto: one a CPU that the process may use
    tasks_budget_bytes: Positive = 12 << 20  # of tasks in memory; others are loaded when asked for
    max_batch: Positive = 16
    max_wait_ms: Annotated[int, Field(ge=0)] = 2
    queue_limit: Positive = 512
    reply_window_s: Positive = 600
    http_port: Port = 9103
    max_tokens: Positive = 96
    max_n_best: Positive = 8  # answers to a request; each takes a place in the batch
    champions_poll_ms: Positive = 50


class ConsolidatorSettings(Section):
    """When `edgeseq up` consolidates the base by itself; off, because it takes CPU and memory."""

    automatic: bool = False
    hours_between: Annotated[float, Field(ge=0)] = 24.0  # from a base that was judged to the next
    flat_looks: Positive = 3  # of 200 pairs each, at which a task's loss fell no further
    least_tasks: Positive = 2  # that are so
    least_pairs: Positive = 1_000  # learnt by all tasks since the last one
    quiet_s: Annotated[float, Field(ge=0)] = 60.0  # no pair waits or is learnt before it starts
    cpu_s: Annotated[float, Field(gt=0)] = 300.0  # CPU-seconds of training
    folder: Path | None = None  # of the bases that it makes; `edgeseq up` names it
    http_port: Port = 9104


class HttpSettings(Section):
    """Metrics and health; other machines see them only when an operator asks for it."""

    host: str = "127.0.0.1"


class LogSettings(Section):
    """Logs on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(BaseSettings):
    """All settings of all services."""

    model_config = SettingsConfigDict(
        env_prefix="EDGESEQ_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    base: BaseModelSettings = BaseModelSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    learner: LearnerSettings = LearnerSettings()
    learning: LearningSettings = LearningSettings()
    predictor: PredictorSettings = PredictorSettings()
    consolidator: ConsolidatorSettings = ConsolidatorSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file."""
        del dotenv_settings, file_secret_settings
        path = os.environ.get(CONFIG_VARIABLE)
        file = (TomlConfigSettingsSource(settings_cls, toml_file=Path(path)),) if path else ()
        return (init_settings, env_settings, *file)

    def redacted(self) -> dict[str, Any]:
        """All values, passwords as ``***``: safe to show."""
        shown = self.model_dump(mode="json")
        shown["redis"]["url"] = redact_url(self.redis.url)
        if self.kafka.sasl_password is not None:
            shown["kafka"]["sasl_password"] = "***"
        return shown

    def as_environment(self) -> dict[str, str]:
        """The variables that give another process these settings, passwords included."""
        variables: dict[str, str] = {}
        for section in type(self).model_fields:
            group: BaseModel = getattr(self, section)
            for name in group.model_fields_set:
                value = getattr(group, name)
                if isinstance(value, SecretStr):
                    value = value.get_secret_value()
                if value is not None:
                    text = json.dumps(value) if isinstance(value, tuple) else str(value)
                    variables[f"EDGESEQ_{section}__{name}".upper()] = text
        return variables

    def chosen(self, section: str, name: str) -> bool:
        """Whether a flag, the environment or the file set a value (it is not just the default)."""
        group: BaseModel = getattr(self, section)
        return name in group.model_fields_set


def redact_url(url: str) -> str:
    """A URL without its password.

    >>> redact_url("redis://:secret@cache:6379/0")
    'redis://***@cache:6379/0'
    """
    return _PASSWORD.sub("***", url)


def load_settings(**flags: Any) -> Settings:
    """Settings with ``flags`` (section -> values) on top; raises ConfigError in one sentence."""
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise ConfigError(f"{CONFIG_VARIABLE} names {path}, which is no file; correct or unset it")
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise ConfigError(_first_fault(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML ({error}); correct it") from None
    except SettingsError as error:
        raise ConfigError(f"the environment holds a setting that cannot be read: {error}") from None


def _first_fault(error: ValidationError) -> str:
    """The first fault of a validation, without the value (it may be a secret)."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # Section and name; what may follow is a kind of a union, or a place in a list.
    where = ".".join(str(part) for part in first["loc"][:2])
    fault = first["msg"].removeprefix("Value error, ")  # what our own checks say
    variable = "EDGESEQ_" + where.upper().replace(".", "__")
    if first["type"] == "extra_forbidden":
        return f"there is no setting {where}; correct the flag, {variable} or the file"
    return f"setting {where} is wrong ({fault}); correct the flag, {variable} or the file"
