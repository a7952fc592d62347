"""``python -m edgeseq_services consumer|learner|predictor``: the command of the container image."""

from __future__ import annotations

import runpy
import sys

SERVICES = ("consumer", "learner", "predictor")


def main(arguments: list[str]) -> int:
    """Become the named service; 2 for a name that is none."""
    if len(arguments) != 1 or arguments[0] not in SERVICES:
        print(f"name one service: {', '.join(SERVICES)}", file=sys.stderr)
        return 2
    runpy.run_module(f"edgeseq_services.{arguments[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
