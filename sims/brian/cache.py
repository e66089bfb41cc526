"""The cache of compiled networks and packed weights, and the scratch folders of runs.

An entry is a folder with a manifest of its files. It is whole or it is made again: the size of each file is looked at
whenever the entry is opened, its digest once in each process. Locks are those of the file system (flock), which hold
between containers as well; whatever nobody holds a lock on was left by a process that was killed, and is removed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_dir

from netspec.files import writable_folder

__all__ = ["cache_entry", "cache_folder", "cache_sizes", "empty_cache", "scratch_folder"]

KINDS = ("binaries", "weights")
MANIFEST = "manifest.json"
verified: set[tuple[Path, str]] = set()  # entries whose digests this process has checked, and their manifests


def cache_folder() -> Path:
    """Where binaries and packed weights are kept: ``$GOING_DEEPER_CACHE`` or the user's cache.

    A user without an account and a home has one among the temporary files.
    """
    place = os.environ.get("GOING_DEEPER_CACHE")
    try:
        place = place or user_cache_dir("going-deeper-in-brian2")
    except RuntimeError:
        place = f"{tempfile.gettempdir()}/going-deeper-in-brian2-{os.getuid()}"
    return Path(os.path.expanduser(place)).absolute()


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, made if need be; without ``wait`` False is given if another process holds it."""
    with open(file, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        except OSError:  # this file system has no locks: as good as held by us if we wait, by another if we do not
            yield wait
        else:
            yield True


def cache_entry(kind: str, key: str, make: Callable[[Path], object]) -> Path:
    """The folder of an entry, made by ``make`` in an empty folder if it is missing or damaged.

    Parameters
    ----------
    kind : {'binaries', 'weights'}
    key : str
        What the entry depends on, as a digest.
    make : callable
        Writes the files; not called if they are there.
    """
    entry = writable_folder(cache_folder() / kind) / key
    if not is_whole(entry):
        with locked(entry.with_name(f"{key}.lock")):
            if not is_whole(entry):  # nobody was faster
                remove_leftovers(entry.parent, key)
                with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{key}-") as temporary:
                    made = Path(temporary, "entry")
                    made.mkdir()
                    make(made)
                    seal(made)
                    shutil.rmtree(entry, ignore_errors=True)
                    entry.unlink(missing_ok=True)
                    made.rename(entry)
    return entry


def seal(entry: Path) -> None:
    """Note the size and the digest of each file of an entry."""
    files = [file for file in sorted(entry.rglob("*")) if file.is_file()]
    noted = {str(file.relative_to(entry)): [file.stat().st_size, digest_of(file)] for file in files}
    (entry / MANIFEST).write_text(json.dumps(noted))
    verified.add((entry, json.dumps(noted)))


def is_whole(entry: Path) -> bool:
    """Whether all files of an entry are as they were when it was made."""
    try:
        text = (entry / MANIFEST).read_text()
        noted = json.loads(text)
        whole = bool(noted) and all((entry / name).stat().st_size == size for name, (size, _) in noted.items())
        if whole and (entry, text) not in verified:
            whole = all(digest_of(entry / name) == digest for name, (_, digest) in noted.items())
            if whole:
                verified.add((entry, text))
        return whole
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def digest_of(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def remove_leftovers(folder: Path, key: str) -> None:
    """Remove what killed processes left of entries that they were making, ``key`` being the one whose lock is ours."""
    for left in folder.glob(".*-*"):
        name = left.name[1:].rpartition("-")[0]
        with locked(folder / f"{name}.lock", wait=False) as held:
            if held or name == key:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the cache for one run; those of runs that were killed are removed."""
    runs = writable_folder(cache_folder() / "runs")
    with ExitStack() as stack:
        with locked(runs.with_name("runs.lock")):  # nobody may take a folder for left that has no lock yet
            remove_scratch(runs)
            folder = Path(tempfile.mkdtemp(dir=runs))
            stack.enter_context(locked(folder / "lock"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def remove_scratch(runs: Path) -> None:
    for lock in runs.glob("*/lock"):
        with suppress(FileNotFoundError), locked(lock, wait=False) as held:  # a run that ends now removes its own
            if held:
                shutil.rmtree(lock.parent, ignore_errors=True)


def cache_sizes() -> dict[str, tuple[int, int]]:
    """How many entries of each kind there are, and how many bytes they take."""
    sizes = {}
    for kind in KINDS:
        entries = [entry for entry in (cache_folder() / kind).glob("*") if entry.is_dir()]
        files = [file for entry in entries for file in entry.rglob("*") if file.is_file()]
        sizes[kind] = len(entries), sum(file.stat().st_size for file in files)
    return sizes


def empty_cache() -> None:
    """Remove all entries but those being made, and what killed processes left; running simulations go on."""
    for kind in KINDS:
        for entry in (cache_folder() / kind).glob("*"):
            name = entry.name.removeprefix(".").partition("-")[0].removesuffix(".lock")
            with locked(entry.with_name(f"{name}.lock"), wait=False) as held:
                if held and entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
    remove_scratch(cache_folder() / "runs")
