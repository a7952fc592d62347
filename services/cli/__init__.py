"""The command ``edgeseq``: each command parses, calls one library function, and prints."""

from .app import main

__all__ = ["main"]
