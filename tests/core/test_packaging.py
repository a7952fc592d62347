"""What pyproject.toml promises is what the code says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from edgeseq_core.corpus.packages import REQUIREMENTS

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def test_data_packages_have_the_pins_that_errors_name() -> None:
    extras = project()["optional-dependencies"]
    pinned = [one for one in extras["demo"] + extras["pretrain"] if "==" in one]
    assert sorted(pinned) == sorted(REQUIREMENTS.values())


def test_every_dependency_has_a_floor_and_a_ceiling_or_a_pin() -> None:
    extras = project()["optional-dependencies"]
    loose = {"structlog", "stamina"}  # calendar versions: a new year is no break
    for requirement in [*project()["dependencies"], *(r for e in extras.values() for r in e)]:
        name = requirement.partition(">")[0]
        if not requirement.startswith("edgeseq[") and name not in loose:
            assert "<" in requirement or "==" in requirement, requirement


def test_every_folder_of_modules_is_a_package() -> None:
    for top in ("edgeseq_core", "services"):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), module.parent
