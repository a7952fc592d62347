"""Names that people type."""

from __future__ import annotations

from edgeseq_core.errors import ConfigError


def check_task(task: str, *, otherwise: str = "") -> None:
    """Raise ConfigError unless ``task`` can name a task; ``otherwise`` says what else to type."""
    from pydantic import TypeAdapter, ValidationError

    from edgeseq_core.messages.fields import TaskName

    try:
        TypeAdapter(TaskName).validate_python(task)
    except ValidationError:
        raise ConfigError(
            f"{task!r} names no task; a name has 1 to 64 of a-z, 0-9, '.', '_', '-' and begins with "
            f"a letter or digit{otherwise and f'; {otherwise}'}"
        ) from None
