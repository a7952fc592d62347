"""`edgeseq demo`: four real tasks, taught over Kafka one after the other, and watched live."""

from .plan import Order
from .session import RATE, run

__all__ = ["RATE", "Order", "run"]
