"""The field types that messages share: names, ids, text, times, and a source."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

SCHEMA_VERSION: Literal[1] = 1
MAX_TEXT_CHARACTERS = 1024  # of a source and of a target
MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999

TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Note = Annotated[str, StringConstraints(max_length=500)]  # a sentence for people
TimeMs = Annotated[int, Field(ge=0, le=MAX_TIME_MS)]  # wall clock, milliseconds since 1970
DurationMs = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Strictly typed, immutable, and closed: an unknown field is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Message(Strict):
    """Something that travels on a topic; ``kind`` tells which."""

    kind: str
    schema_version: Literal[1] = SCHEMA_VERSION
    reason_codes: ClassVar[tuple[str, ...]] = (
        "too_large",
        "undecodable",
        "wrong_version",
        "wrong_kind",
        "invalid",
    )


class Series(Strict):
    """An irregular time series: one row of ``values`` at each of the increasing ``times``."""

    times: Annotated[list[FiniteFloat], Field(min_length=1)]
    values: Annotated[list[Annotated[list[FiniteFloat], Field(min_length=1)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if len(self.times) != len(self.values):
            raise ValueError(
                f"{len(self.times)} times but {len(self.values)} rows of values; both must be equal"
            )
        if len({len(row) for row in self.values}) != 1:
            raise ValueError("all rows of values must have the same length")
        if any(later <= earlier for earlier, later in pairwise(self.times)):
            raise ValueError("times must increase")
        return self


Source = Text | Series
