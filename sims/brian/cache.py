"""Where compiled networks, packed weights and the files of runs are kept."""

import os
import platform
import shutil
import tempfile
from pathlib import Path

from platformdirs import user_cache_dir

from netspec.files import writable_folder

__all__ = ["cache_folder", "scratch_folder"]


def cache_folder() -> Path:
    """Where binaries and packed weights are kept: ``$GOING_DEEPER_CACHE`` or the user's cache."""
    return Path(os.environ.get("GOING_DEEPER_CACHE") or user_cache_dir("going-deeper-in-brian2"))


def scratch_folder() -> tempfile.TemporaryDirectory:
    """A folder in the cache for one run; those of processes that were killed on this machine are removed."""
    runs = writable_folder(cache_folder() / "runs")
    host = platform.node()
    for left in runs.glob(f"{host}.*.*"):
        process = left.name.removeprefix(f"{host}.").split(".")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OSError):  # not ours to judge
            continue
    return tempfile.TemporaryDirectory(dir=runs, prefix=f"{host}.{os.getpid()}.")
