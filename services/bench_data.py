"""Data of the stream bench that no Python package has: Debian's catalogues and codespell's old releases."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which

from edgeseq_core.corpus import catalogues, codespell_releases
from edgeseq_core.errors import ConfigError, ServiceError


def fetch(data: Path) -> Iterator[str]:
    """Put into ``data`` what is not there yet; says what it does.

    apt-get and pip download, nothing is installed.  Raises ConfigError for a folder that cannot be
    written, ServiceError with what the tool said.
    """
    folder = data / codespell_releases.FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}; name another --data") from None
    for release in codespell_releases.RELEASES:
        if not any(folder.glob(f"codespell-{release}-*.whl")):
            yield f"codespell {release}"
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            _call([*download, f"codespell=={release}"], folder)
    debian = data / catalogues.FOLDER
    if any(debian.rglob("*.mo")):
        return
    for tool in ("apt-get", "dpkg-deb"):
        if which(tool) is None:
            yield f"{tool} is not here, so {debian} stays empty: fetch it on Debian and copy the folder"
            return
    for package in catalogues.DEBIAN_PACKAGES:
        yield f"Debian's {package}"
        with tempfile.TemporaryDirectory() as scratch:
            _call(["apt-get", "download", "--quiet", package], Path(scratch))
            (archive,) = Path(scratch).glob("*.deb")
            _call(["dpkg-deb", "--extract", str(archive), "unpacked"], Path(scratch))
            _keep_catalogues(Path(scratch) / "unpacked", debian)


def _keep_catalogues(unpacked: Path, debian: Path) -> None:
    for language in catalogues.LANGUAGES:
        for found in unpacked.rglob(f"{language}/LC_MESSAGES/*.mo"):
            kept = debian / found.relative_to(unpacked)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(found.read_bytes())


def _call(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ServiceError(f"{' '.join(command)} failed: {said[-1] if said else 'it said nothing'}")
