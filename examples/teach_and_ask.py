"""Teach a few pairs and ask for an answer.

Run:  edgeseq up                                  # in one terminal
      python examples/teach_and_ask.py            # in another, from the same folder
"""

import time

from edgeseq_core.client import Client
from edgeseq_core.errors import RequestError
from edgeseq_services.state_dir import client_settings

MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September"]


def pairs() -> list[tuple[str, str]]:
    """Dates as people write them, and as machines do."""
    return [
        (f"{day} {name} {year}", f"{year}-{month:02}-{day:02}")
        for year in range(2020, 2028)
        for month, name in enumerate(MONTHS, start=1)
        for day in range(1, 29, 3)
    ]


# With a broker of your own: Client("broker:9092")
with Client(settings=client_settings().kafka, producer="example") as client:
    report = client.teach("example-dates", pairs())
    print(f"{report.count} pairs acknowledged in {report.seconds:.1f} s")
    while client.pair_status("example-dates", "example", report.pair_ids[-1]).state == "waiting":
        time.sleep(1)  # about twenty seconds on two cores
    try:
        prediction = client.predict("example-dates", "5 May 2026")
        print(f"{prediction.target}  {prediction.confidence:.0%}  {prediction.snapshot_id}")
    except RequestError as error:  # e.g. unknown_task, while nothing has been learnt yet
        print(error)
