"""Ask many things at once without blocking the event loop.

Run:  edgeseq up                                  # in one terminal
      python examples/teach_and_ask.py            # in another: teaches the task
      python examples/async_client.py
"""

import asyncio

from edgeseq_core.client import AsyncClient, Prediction
from edgeseq_services.state_dir import client_settings


def shown(prediction: Prediction) -> str:
    """One line: the answer, or why there is none."""
    if prediction.error is not None:
        return f"{prediction.source}: {prediction.error}"
    return f"{prediction.source} -> {prediction.target}  {prediction.confidence:.0%}"


async def main() -> None:
    """A batch whose errors are values, and a request that is corrected."""
    async with AsyncClient(settings=client_settings().kafka, producer="example") as client:
        sources = [f"{day} April 2026" for day in range(2, 12)]
        for prediction in await client.predict("example-dates", sources):
            print(shown(prediction))
        pair_id = await client.correct("example-dates", "7 April 2026", "2026-04-07")
        print(await client.pair_status("example-dates", "example", pair_id))


asyncio.run(main())
