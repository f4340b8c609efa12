"""Published files, downloaded once into a folder of the user's."""

import os
import pathlib
from typing import Any

from nt_residual.data import published

_ENVIRONMENT = "NT_RESIDUAL_DATA"
# Of silence, after which a server is given up.
_SECONDS = 30


def cache() -> pathlib.Path:
    """The folder of downloaded files: what the variable NT_RESIDUAL_DATA says, or the system's.

    Raises:
      ImportError: if the variable is not set and pooch is missing.
    """
    chosen = os.environ.get(_ENVIRONMENT)
    return pathlib.Path(chosen or _pooch().os_cache("nt_residual")).expanduser()


def fetch(dataset: str) -> pathlib.Path:
    """Downloads the files of a data set that are not in the cache yet.

    A file gets its name only once it is whole and its SHA-256 sum is right: a download that
    fails leaves nothing behind. Files that are there already are not looked at.

    Args:
      dataset: a key of `published.DATASETS`.

    Returns:
      The cache.

    Raises:
      OSError: if a file can be had from none of its sources.
      ImportError: if a file is missing, and so is pooch.
    """
    folder = cache()
    for file in published.DATASETS[dataset]:
        if not (folder / file.name).exists():
            _download(file, folder, dataset)
    return folder


def _download(file: published.File, folder: pathlib.Path, dataset: str) -> None:
    pooch = _pooch()
    failures = []
    for source in file.sources:
        # Its own pieces are of 1 kB.
        downloader = pooch.HTTPDownloader(timeout=_SECONDS, chunk_size=2**20)
        try:
            pooch.retrieve(
                source + file.name,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=folder,
                downloader=downloader,
            )
            return
        # The latter if the sum is another, the former for all else, timeouts included.
        except (OSError, ValueError) as error:
            failures.append(f"{source + file.name}: {error}")
    names = ", ".join(each.name for each in published.DATASETS[dataset])
    reasons = "\n  ".join(failures)
    raise OSError(
        f"{file.name} of the data set {dataset!r} could not be downloaded:\n  {reasons}\n"
        f"Try again with a connection; or get these files elsewhere, put them into one folder as "
        f"they are, and pass root=, that folder: {names}."
    )


def _pooch() -> Any:
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ImportError(
            "downloads need pooch, which is not installed: pip install pooch (the extra 'data'), "
            "or pass root=, a folder that holds the files"
        ) from error
    return pooch
