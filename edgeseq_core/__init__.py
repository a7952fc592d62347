"""EdgeSeq: teach a tiny sequence-to-sequence model while it serves."""

__version__ = "0.1.0"
