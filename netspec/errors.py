"""Errors of the person at the keyboard, told in one line."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["UserError", "run_command", "writable_file", "writable_folder"]


class UserError(Exception):
    """Something the user can put right; the message says what was found, what was expected, what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Run the ``main`` of a command; end on a user's mistake with one line on stderr and exit status 2."""
    name = Path(sys.argv[0]).name
    try:
        main()
        sys.stdout.flush()  # here, where its errors are still told in one line
    except UserError as error:
        sys.exit(_say(name, str(error)))
    except (MemoryError, RuntimeError) as error:
        torchs = any(words in str(error) for words in ("can't allocate memory", "out of memory"))  # on CPU, on GPU
        if not (torchs or isinstance(error, MemoryError)):
            raise
        sys.exit(_say(name, "out of memory; use fewer images at a time, a narrower network or shared synapses"))
    except KeyboardInterrupt:
        _say(name, "interrupted; what was finished is kept")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone: not our error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(_say(name, f"{os.strerror(error.errno).lower()}{where}"))


def _say(name: str, message: str) -> int:
    print(f"{name}: error: {message}", file=sys.stderr)
    return 2


def writable_folder(path: str | os.PathLike) -> Path:
    """Make the folder if need be and make sure that files can be written into it; raises UserError."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # a name of its own: threads may ask side by side
            pass
    except OSError as error:
        raise UserError(f"cannot write into the folder {folder}: {os.strerror(error.errno or 0)}") from error
    return folder


def writable_file(path: str | os.PathLike) -> Path:
    """The file that --out names, its folder made if need be; raises UserError if it cannot be written."""
    file = Path(path)
    if file.is_dir():
        raise UserError(f"--out {file} is a folder; give the name of a file")
    writable_folder(file.parent)
    return file
