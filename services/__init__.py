"""Processes around `edgeseq_core`: settings, wiring, running, draining.

The folder installs as the package ``edgeseq_services``.
"""
