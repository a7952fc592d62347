"""Engines at the same work, side by side: ours, PyTorch, and peers that may be installed."""
