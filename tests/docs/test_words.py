"""What must stand in no committed file: how it was made, and ways to load code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEXT = {".py", ".md", ".yaml", ".yml", ".json", ".toml", ".lua", ".conf", ".cfg", ".txt", ""}
_OF_THE_WORKSHOP = re.compile(
    "|".join((r"/wo" r"rk/", r"\.lib" r"rary\b", r"\bH-[A-Z]{3,}\b", r"\bissue #?\d+\b"))
)
_LOADS_CODE = re.compile(r"\b(import pickle|from pickle|torch\.load|joblib|marshal|shelve)\b")


def committed() -> list[Path]:
    """Text files under version control; everything but caches where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        ).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git does not list the files here")
    files = [ROOT / name for name in listed if name]
    return [file for file in files if file.suffix in _TEXT and file.is_file()]


def test_no_committed_file_tells_of_its_workshop() -> None:
    found = []
    for file in committed():
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
            if _OF_THE_WORKSHOP.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}")
    assert found == []


def test_no_code_loads_code() -> None:
    for folder in ("edgeseq_core", "services"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not _LOADS_CODE.search(file.read_text()), file
