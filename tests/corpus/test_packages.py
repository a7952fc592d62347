"""A missing data package says which one and how to install it."""

from __future__ import annotations

import pytest

from edgeseq_core.corpus import packages
from edgeseq_core.errors import MissingExtraError


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.REQUIREMENTS, "no_such_data", "no-such-data==1.0")
    message = "no-such-data is not installed; run: pip install 'no-such-data==1.0'"
    with pytest.raises(MissingExtraError, match=message):
        packages.load("no_such_data")
    with pytest.raises(MissingExtraError, match=message):
        packages.data_file("no_such_data", "file.txt")
