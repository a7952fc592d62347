"""Optional packages, asked for where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeseq_core.errors import MissingExtraError

OF_EXTRA = ("torch", "river")


@contextmanager
def learner_extra() -> Iterator[None]:
    """Name the extra when a package of it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in OF_EXTRA:
            raise
        raise MissingExtraError(
            str(error.name), "install it with pip install 'edgeseq[learner]'"
        ) from None
