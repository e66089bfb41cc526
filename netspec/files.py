"""Files that are there whole or not at all, and places that can be written to."""

import os
import tempfile
from pathlib import Path

from netspec.errors import UserError

__all__ = ["writable_file", "writable_folder", "write_atomically"]


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file so that it is there whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if isinstance(content, str):
            content = content.encode()
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
    """The file itself, its folder made if need be; raises UserError if it cannot be written."""
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a file")
    writable_folder(file.parent)
    return file
