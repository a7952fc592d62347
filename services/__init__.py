"""Processes around `edgeseq_core`: settings, wiring, running, draining; installed as `edgeseq_services`."""
