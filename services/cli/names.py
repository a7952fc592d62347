"""Names that people type."""

from __future__ import annotations

from edgeseq_core.errors import ConfigError


def check_task(task: str) -> None:
    """Raise ConfigError unless ``task`` can name a task."""
    from pydantic import TypeAdapter, ValidationError

    from edgeseq_core.messages.fields import TaskName

    try:
        TypeAdapter(TaskName).validate_python(task)
    except ValidationError:
        raise ConfigError(
            f"{task!r} names no task; a name has 1 to 64 of a-z, 0-9, '.', '_', '-' and begins with "
            "a letter or digit"
        ) from None
