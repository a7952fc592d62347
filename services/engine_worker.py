"""One engine in a process of its own, which answers a batch again and again when it is told to.

Each line of the input is a JSON object, ``{"batch": 1, "tasks": 0, "seconds": 0.2}`` for a time or ``{}``
for the answers to the sources that all engines get; each line of the output is what was asked for.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from edgeseq_core.evaluate.engines.peer import Work, sources, take_time
from edgeseq_core.evaluate.engines.registry import KINDS


def main() -> None:
    """Load the engine, say its version, and serve until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # advice of the peers' tools, which is not for who measures
    out = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    kind = KINDS[args.engine]
    peer = kind.load(args.folder, args.threads, args.variant)

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=out, flush=True)

    say({"version": kind.version})
    works = dict[tuple[int, int], Work]()
    for line in sys.stdin:
        asked = json.loads(line)
        if not asked:
            say(peer.answers(sources()))
            continue
        cell = asked["batch"], asked["tasks"]
        if cell not in works:
            works[cell] = peer.prepare(*cell)
            works[cell]()
        say(take_time(works[cell], asked["seconds"])._asdict())


if __name__ == "__main__":
    main()
