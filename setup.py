"""The list of packages; everything else is in pyproject.toml.

The folder ``services/`` installs as ``edgeseq_services``: a wheel must not claim a generic import name.
"""

from setuptools import find_packages, setup

core = find_packages(include=["edgeseq_core", "edgeseq_core.*"])
services = [f"edgeseq_services.{name}" for name in find_packages("services")]

setup(packages=[*core, "edgeseq_services", *services])
