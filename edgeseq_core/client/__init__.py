"""The client library: speaks only Kafka.

`Client` blocks, `AsyncClient` awaits; both teach pairs, ask for predictions, correct answers, ask
what became of a pair, and let an operator promote, pin and roll back.
"""

from edgeseq_core.client.aio import AsyncClient
from edgeseq_core.client.client import Client
from edgeseq_core.client.pairs import Example, TeachReport
from edgeseq_core.client.prediction import Options, Prediction

__all__ = ["AsyncClient", "Client", "Example", "Options", "Prediction", "TeachReport"]
