"""Files that are there whole or not at all, and places that can be written to."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from netspec.errors import UserError

__all__ = ["read_json", "writable_file", "writable_folder", "write_atomically", "write_json"]


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


def write_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write a dictionary as JSON with a digest of itself, atomically."""
    write_atomically(path, json.dumps(content | {"digest": _json_digest(content)}, indent=1) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """What :func:`write_json` has written; ValueError if it was changed since. Without a digest it is taken as is."""
    try:
        content = json.loads(Path(path).read_bytes())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("no dictionary")
    noted = content.pop("digest", None)
    if noted not in (None, _json_digest(content)):
        raise ValueError("its content was changed since it was written; if that is wanted, remove its line 'digest'")
    return content


def _json_digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


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


def writable_file(path: str | os.PathLike, suffix: str = "") -> Path:
    """The file itself, its folder made if need be; raises UserError if it cannot be written, or lacks the suffix."""
    file = Path(path)
    if suffix and file.suffix != suffix:
        raise UserError(f"the name of the file must end in {suffix}, got {file.name}")
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a file")
    writable_folder(file.parent)
    return file
