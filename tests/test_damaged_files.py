"""Every file of ours, damaged at random or hostile: refused in one line, or made again, never a wrong value taken."""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import tiny_checkpoint
from recordings import small_recording

from netspec.checkpoint import load_checkpoint, save_checkpoint
from netspec.conversion import Conversion, load_conversion
from netspec.data import ImageSet
from netspec.errors import UserError
from netspec.files import read_json
from netspec.recipe import Recipe
from netspec.thresholds import Thresholds, load_thresholds
from netspec.trainer import Trainer
from sims.brian import cache
from sims.evaluation.error_tables import KEYS, with_earlier
from sims.evaluation.shards import Case, Setting, Shard, read_shard, write_shard
from sims.simulation.recording import Recording

CHECKPOINT = tiny_checkpoint()
SHARD = Shard(Case(Setting("net", "digest", "data", "ann-norm", False, 100.0, "1", "zero"), 0, 20), 3, 7)
ROWS = pd.DataFrame({"image": range(3, 7), "snn_20": np.int16([1, 2, 3, 4]), "ac": [1e6, 2e6, 3.5, 0.0]})
ERRORS = pd.DataFrame([dict.fromkeys(KEYS, "a") | {"steps": 10, "seed": "0 1", "snn_error": 12.5}])


def plain(value: Any) -> Any:
    """Something that is equal exactly if its content is."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return value


class Files:
    """For each kind of file: writes a good one, and reads it as the commands do; what cannot be read is None."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checkpoint(self) -> tuple[Path, Callable[[], Any]]:
        save_checkpoint(CHECKPOINT, self.folder / "net.safetensors", np.float16)

        def read() -> Any:
            found = load_checkpoint(self.folder / "net.safetensors")
            return found.digest, plain(dict(found.weights)), plain(found.mean), found.classes, found.info

        return self.folder / "net.safetensors", read

    def thresholds(self) -> tuple[Path, Callable[[], Any]]:
        values = {p.name: 1.0 + k / 7 for k, p in enumerate(CHECKPOINT.spec.spiking)}
        path = self.folder / "thresholds.json"
        Thresholds(values, "spike-norm", CHECKPOINT.digest, 99.5, 3, "images", 0, 20).save(path)
        return path, lambda: load_thresholds(path, CHECKPOINT)

    def conversion(self) -> tuple[Path, Callable[[], Any]]:
        values: dict[str, Any] = {p.name: np.full(p.shape[2], 1.5) for p in CHECKPOINT.spec.spiking}
        path = self.folder / "mine.conversion.safetensors"
        Conversion(CHECKPOINT.digest, "mine", values, values, coding="current", steps=4, made={"images": 3}).save(path)

        def read() -> Any:
            found = load_conversion(path, CHECKPOINT)
            return found.digest, plain(dict(found.thresholds)), found.made, found.steps, found.reset

        return path, read

    def recording(self) -> tuple[Path, Callable[[], Any]]:
        path = self.folder / "recording.npz"
        small_recording().save(path)
        return path, lambda: plain(vars(Recording.load(path)))

    def shard(self) -> tuple[Path, Callable[[], Any]]:
        write_shard(ROWS, SHARD, self.folder)

        def read() -> Any:
            found = read_shard(SHARD, self.folder)
            return found if found is None else (list(found.dtypes.items()), found.to_csv())

        return SHARD.path(self.folder), read

    def state(self) -> tuple[Path, Callable[[], Any]]:
        noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        images = ImageSet(noise, np.arange(8), CHECKPOINT.classes, "noise")

        def trainer() -> Trainer:
            return Trainer(CHECKPOINT.spec, images, images, Recipe(epochs=1, validation=2, bf16=False), "cpu")

        first = trainer()
        first.run_epoch()
        path = self.folder / "state.safetensors"
        path.write_bytes(first.state())

        def read() -> Any:
            going_on = trainer()
            going_on.resume(path)
            return going_on.state()

        return path, read

    def cached(self) -> tuple[Path, Callable[[], Any]]:
        def entry() -> Path:
            cache.verified.clear()  # as in a new process
            return cache.cache_entry("weights", "key", lambda made: (made / "a.bin").write_bytes(bytes(range(256))))

        return entry() / "a.bin", lambda: (entry() / "a.bin").read_bytes()

    def manifest(self) -> tuple[Path, Callable[[], Any]]:
        file, read = self.cached()
        return file.with_name(cache.MANIFEST), read


KINDS = [name for name in vars(Files) if not name.startswith("_")]


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """Cut off, a bit turned, bytes overwritten, put in or taken out."""
    at, length = int(draw.integers(len(content))), int(draw.integers(1, 40))
    noise = draw.bytes(length)
    return [
        content[:at],
        content[:at] + bytes([content[at] ^ 1 << draw.integers(8)]) + content[at + 1 :],
        content[:at] + noise + content[at + length :],
        content[:at] + noise + content[at:],
        content[:at] + content[at + length :],
        content[:at] + bytes(length) + content[at + length :],
    ][draw.integers(6)]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_or_does_not_matter(kind, tmp_path, own_cache):
    path, read = getattr(Files(tmp_path), kind)()
    good, whole, draw, told = path.read_bytes(), read(), np.random.default_rng(0), 0
    for _ in range(40 if kind == "state" else 200):
        path.write_bytes(damaged(good, draw))
        try:
            found = read()
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
            found = None
        told += found is None
        assert found is None or found == whole
    assert told > 10 or kind in ("cached", "manifest")  # those are made again


def test_damaged_tables_are_told_or_read_as_they_are(tmp_path):
    """A table is for people, who may change it; it has no digest."""
    path, draw, told = tmp_path / "errors.csv", np.random.default_rng(0), 0
    good = ERRORS.to_csv(index=False).encode()
    for _ in range(200):
        path.write_bytes(damaged(good, draw))
        try:
            with_earlier(ERRORS.assign(reset="other"), path)
        except UserError as error:
            assert str(path) in str(error)
            told += 1
    assert told > 10


@pytest.mark.parametrize("content", ["null", "7", "[]", "[" * 100_000, '{"digest": 1}', '{"a": NaN, "digest": "0"}'])
def test_foreign_json_is_refused(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match="is no thresholds file"):
        load_thresholds(tmp_path / "a.json", CHECKPOINT)


def test_json_that_was_changed_on_purpose_loses_its_digest(tmp_path):
    path, _ = Files(tmp_path).thresholds()
    content = json.loads(path.read_text())
    content["values"]["output"] = 5.0
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="remove its line 'digest'"):
        load_thresholds(path, CHECKPOINT)
    del content["digest"]
    path.write_text(json.dumps(content))
    assert load_thresholds(path, CHECKPOINT).values["output"] == 5.0


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def hostile(payload: Payload) -> dict[str, bytes]:
    """Pickles in all the wrappings that other libraries would open."""
    wrapped = {name: io.BytesIO() for name in ("torch", "npy", "npz", "parquet")}
    torch.save(payload, wrapped["torch"])
    array = np.array([payload], dtype=object)
    np.save(wrapped["npy"], array)
    np.savez(wrapped["npz"], header=array, counts=array, output_v=array)
    table = pa.table({"image": [pickle.dumps(payload)] * 4}).replace_schema_metadata({"pandas": pickle.dumps(payload)})
    pq.write_table(table, wrapped["parquet"])
    text = f"__import__('os').mkdir({str(payload.folder)!r})"
    return {name: buffer.getvalue() for name, buffer in wrapped.items()} | {
        "pickle": pickle.dumps(payload),
        "json": json.dumps({"format": text, "values": text, "method": text, "py/reduce": [text]}).encode(),
        "text": text.encode(),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_can_run_code(kind, tmp_path, own_cache):
    payload = Payload(tmp_path / "executed")
    path, read = getattr(Files(tmp_path), kind)()
    whole = read()
    for content in hostile(payload).values():
        path.write_bytes(content)
        try:
            found = read()
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert found is None or found == whole
    assert not payload.folder.exists()
    pickle.loads(pickle.dumps(payload))
    assert payload.folder.exists()  # it would have shown


def test_content_without_a_digest_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
