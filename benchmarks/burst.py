"""Burst: 5,000 pairs at once into one task while another gets one correction.

    python benchmarks/burst.py [--broker embedded|apache] [--pairs 5000]

Shown: seconds until the correction is in the snapshot that serves, and until the burst is learnt.
"""

from __future__ import annotations

import argparse
import time

from report import publish
from rig import demo_pairs, running

from edgeseq_core.client import Client


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", default="embedded", choices=("embedded", "apache"))
    parser.add_argument("--pairs", type=int, default=5_000)
    args = parser.parse_args()
    with running(args.broker) as instance, Client(instance.endpoints.kafka) as client:
        client.teach("dates", demo_pairs("dates", 200))
        time.sleep(20)
        burst = demo_pairs("german-plurals", args.pairs)
        began = time.monotonic()
        report = client.teach("german-plurals", burst, producer="bench")
        sent = time.monotonic() - began
        corrected = time.monotonic()
        pair_id = client.correct("dates", "the ides of March 44", "0044-03-15")
        wait_learnt(client, "dates", client.producer, pair_id)
        correction_s = time.monotonic() - corrected
        wait_trained(client, "german-plurals", report.pair_ids[-1])
        drained_s = time.monotonic() - began
    publish(
        f"burst-{args.broker}",
        f"python benchmarks/burst.py --broker {args.broker} --pairs {args.pairs}",
        [
            {
                "broker": args.broker,
                "burst pairs": args.pairs,
                "sent s": sent,
                "correction served s": correction_s,
                "burst learnt s": drained_s,
                "pairs/s learnt": args.pairs / drained_s,
            }
        ],
    )


def wait_learnt(client: Client, task: str, producer: str, pair_id: str) -> None:
    """Until the champion has learnt the pair."""
    while not client.pair_status(task, producer, pair_id).in_champion:
        time.sleep(0.1)


def wait_trained(client: Client, task: str, pair_id: str) -> None:
    """Until the pair is trained or held out: all before it are, too."""
    while client.pair_status(task, "bench", pair_id).state not in ("trained", "held_out"):
        time.sleep(1)


if __name__ == "__main__":
    main()
