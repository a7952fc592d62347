"""What the tests read of the documents."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [text for language, text in found if language in languages]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", page.read_text(), flags=re.M | re.S)


def code_words(page: Path) -> list[str]:
    """What stands in backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> list[str]:
    """Every `edgeseq ...` command line, in blocks and in backticks."""
    lines = [
        line.removeprefix("$ ").split(" #")[0].strip()
        for block in blocks(page, "bash", "console")
        for line in block.splitlines()
    ]
    return [one for one in (*lines, *code_words(page)) if one.startswith("edgeseq ")]


def section(page: Path, title: str) -> str:
    """The text under a heading, up to the next of its level or above."""
    text = page.read_text()
    match = re.search(rf"^(#+) {re.escape(title)}$", text, re.M)
    assert match, f"{page.name} has no section {title!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def first_column(text: str) -> list[str]:
    """The backticked first cells of a table's rows."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.M)
