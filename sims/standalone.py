"""Running a network as a C++ binary: compiled once for a network and its options, cached, run again and again.

Images, weights, thresholds, seeds, the number of steps and the rasters are run-time arguments.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from platformdirs import user_cache_dir
from tqdm import tqdm

from netspec.checkpoint import write_atomically
from netspec.errors import UserError, writable_folder
from netspec.spec import NetSpec
from sims.recording import Recording, counted_groups
from sims.runtime import Progress, RunInput
from sims.stimulus import presentation_keys
from sims.synapses.packing import fit_half, packed_weights

__all__ = ["StandaloneSimulator", "cache_folder"]

HERE = Path(__file__).parent
OWN_HEADERS = ("run_input.h", "vectors.h")
PRECOMPILED = ("objects.h", "brianlib/common_math.h", "brianlib/stdint_compat.h", *OWN_HEADERS)
PRECOMPILED_STANDARD = ("algorithm", "climits", "cmath", "ctime", "fstream", "iostream")
IN_ORDER = "-fno-associative-math"  # Brian2's -ffast-math would let the compiler add up spikes in any order
COMPILING = threading.Lock()  # Brian2's device is one for all threads
BEGIN = "const auto run_began = std::chrono::steady_clock::now();"
END = """
const std::chrono::duration<double> run_took = std::chrono::steady_clock::now() - run_began;
std::cout << "run_seconds " << run_took.count() << std::endl;
"""


def cache_folder() -> Path:
    """Where binaries and packed weights are kept: ``$GOING_DEEPER_CACHE`` or the user's cache."""
    return Path(os.environ.get("GOING_DEEPER_CACHE") or user_cache_dir("going-deeper-in-brian2"))


class StandaloneSimulator:
    """A compiled network.

    Parameters
    ----------
    spec, weights, synapses, reset
        As for :class:`~sims.network.SpikingNetwork`.
    quiet : bool
        Show no progress bar while compiling.
    profile : bool
        Let Brian2 measure the time of each of its objects.

    Attributes
    ----------
    seconds : dict of str to float
        Time spent on 'build' (code generation) and 'compile'; 0 if the binary was there.
    run_seconds : float
        Time that the last run's steps took, without starting the binary and reading and writing files.
    profiled : dict of str to float
        Processor time that each Brian2 object took in the last run, in seconds; empty without ``profile``.
    peak_memory : int
        Most memory that the binary's last run held, in bytes.
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray],
        synapses: str = "shared",
        reset: str = "zero",
        quiet: bool = False,
        profile: bool = False,
    ) -> None:
        self.spec, self.synapses = spec, synapses
        half = synapses == "shared" and fit_half(weights)
        self.seconds = {"build": 0.0, "compile": 0.0}
        self.peak_memory, self.run_seconds = 0, 0.0
        self.profiled: dict[str, float] = {}
        compiled_in = weights if synapses == "explicit" else {}
        key = digest(spec, compiled_in, [synapses, reset, half, profile, toolchain(), sources()])
        cache = writable_folder(cache_folder())
        self.folder = cache / "binaries" / key[:32]
        with COMPILING:
            if not (self.folder / "main").is_file():
                self._compile(weights, synapses, reset, half, quiet, profile)
        self.arrays = json.loads((self.folder / "arrays.json").read_text())
        self.weights = cache / "weights" / f"{digest(spec, weights, [sources('geometry.py', 'packing.py')])[:32]}.bin"
        if synapses == "shared" and not self.weights.is_file():
            self.weights.parent.mkdir(exist_ok=True)
            write_atomically(self.weights, packed_weights(spec, weights).tobytes())

    def _compile(
        self, weights: Mapping[str, np.ndarray], synapses: str, reset: str, half: bool, quiet: bool, profile: bool
    ) -> None:
        for program in (os.environ.get("CXX", "g++"), "make"):
            if not shutil.which(program):
                raise UserError(
                    f"no C++ compiler found ({program} is missing): install g++ and make, or choose --runtime numpy"
                )
        self.folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=f".{self.folder.name}-") as folder:
            project = Path(folder, "project")
            start = time.perf_counter()
            arrays, flags = generate(self.spec, weights, synapses, reset, half, project, profile)
            write_atomically(project / "arrays.json", json.dumps(arrays))
            compiling = time.perf_counter()
            compile_project(project, flags, quiet)
            self.seconds = {"build": compiling - start, "compile": time.perf_counter() - compiling}
            for leftover in project.glob("**/*.[og]*"):
                if leftover.suffix in (".o", ".gch"):
                    leftover.unlink()
            try:
                project.rename(self.folder)
            except OSError:  # another process was faster
                if not (self.folder / "main").is_file():
                    raise

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images one after another and give back what was recorded."""
        given = run_input.checked(self.spec)
        if given.measured and self.synapses != "shared":
            raise UserError("synaptic input is measured with shared synapses only")
        with scratch_folder() as folder:
            results = Path(folder)
            self._execute(given, results, progress)
            self.profiled = profiled_times(results / "profiling_info.txt")
            return self._collect(given, results)

    def _execute(self, given: RunInput, results: Path, progress: Progress | None) -> None:
        given.x.tofile(results / "images.f32")
        presentation_keys(given.seed, given.numbers).tofile(results / "keys.u64")
        lines = {
            "weights": self.weights,
            "images": results / "images.f32",
            "keys": results / "keys.u64",
            "presentations": len(given.x),
            "steps": given.steps,
            "raster_presentations": given.raster_presentations,
        }
        if self.synapses == "explicit":
            del lines["weights"]
        text = "".join(f"{key} {value}\n" for key, value in lines.items())
        text += "".join(f"raster {name}\n" for name in (self.spec.output.name, *given.rasters))
        (results / "input.txt").write_text(text)
        largest = float(np.finfo(np.float32).max)
        arguments = [f"{name}.v_th={min(value, largest)!r}" for name, value in given.thresholds.items()]
        arguments += [f"{name}.measured=1" for name in given.measured]
        command = [str(self.folder / "main"), "--results_dir", f"{results}/", str(results / "input.txt"), *arguments]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                if line.startswith("peak_memory "):
                    self.peak_memory = int(line.split()[1])
                elif line.startswith("run_seconds "):
                    self.run_seconds = float(line.split()[1])
                elif progress and line.strip().isdigit():
                    progress(int(line))
            message = process.stderr.read().strip()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if status:
            raise UserError(
                f"the simulation ended with status {status}: {message or 'killed, perhaps for want of memory'}"
            )

    def _collect(self, given: RunInput, results: Path) -> Recording:
        presentations = len(given.x)
        counts = np.fromfile(results / "spike_counts.bin", dtype=np.uint16)
        output_v = np.fromfile(results / "output_v.bin", dtype=np.float32)
        rasters = {}
        for name in (self.spec.output.name, *given.rasters):
            rasters[name] = np.fromfile(results / f"raster_{name}.bin", dtype=np.int32).reshape(-1, 2)
        return Recording(
            self.spec,
            given.steps,
            counts.reshape(presentations, sum(counted_groups(self.spec).values())),
            output_v.reshape(presentations, given.steps, self.spec.output.size),
            rasters,
            {name: self._result(results, f"{name}.peak") for name in given.measured},
            given.describe(),
        )

    def _result(self, results: Path, name: str) -> np.ndarray:
        array = self.arrays[name]
        return np.fromfile(results / array["file"], dtype=array["dtype"])


def profiled_times(file: Path) -> dict[str, float]:
    """Seconds of each Brian2 object; nothing if there is no such file."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {name.removesuffix("_codeobject"): float(spent) for name, spent in (line.split() for line in lines)}


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


def generate(
    spec: NetSpec,
    weights: Mapping[str, np.ndarray],
    synapses: str,
    reset: str,
    half: bool,
    project: Path,
    profile: bool = False,
) -> tuple[dict[str, dict[str, str]], str]:
    """Write the C++ project of a network.

    Returns
    -------
    arrays : dict
        File and dtype of each variable ``group.name`` among the results.
    flags : str
        Compiler flags.
    """
    from brian2.codegen.cpp_prefs import get_compiler_and_args
    from brian2.devices.device import get_device, reset_device, set_device

    from sims.network import DT, SpikingNetwork

    set_device("cpp_standalone", build_on_run=False)
    device = get_device()
    try:
        device.headers.extend(f'"{header}"' for header in OWN_HEADERS)
        device.insert_code("before_start", "run_input::read(args);")
        device.headers.append("<chrono>")
        device.insert_code("before_network_run", BEGIN)
        device.insert_code("after_network_run", END)
        device.insert_code("after_end", "run_input::tell_peak_memory();")
        snn = SpikingNetwork(spec, weights if synapses == "explicit" else None, synapses, reset, half)
        snn.network.run(DT, namespace={}, profile=profile)
        read_duration_at_run_time(device, snn.network.name)
        project.mkdir(parents=True)
        for header in OWN_HEADERS:
            shutil.copy(HERE / "synapses" / header, project)
        device.build(directory=str(project), compile=False, run=False, with_output=False)
        arrays = {}
        for variable in device.arrays:
            name = f"{getattr(variable.owner, 'name', '')}.{variable.name}"
            arrays[name] = {"file": device.get_array_filename(variable), "dtype": np.dtype(variable.dtype).name}
    finally:
        device.reinit()
        reset_device()
    return arrays, " ".join([*get_compiler_and_args()[1], IN_ORDER])


def read_duration_at_run_time(device, network: str) -> None:
    """Let the generated ``main`` simulate as long as its input says, instead of the compiled-in duration."""
    for task, content in device.main_queue:
        if task == "run_network":
            lines = content[1]
            at = next(k for k, line in enumerate(lines) if line.startswith(f"{network}.run("))
            lines[at] = f"{network}.run(run_input::get().duration(_array_defaultclock_dt[0]), NULL, 10.0);"


def compile_project(project: Path, flags: str, quiet: bool) -> None:
    """Run make on a generated project, with a precompiled header, a process a core and a progress bar.

    Raises
    ------
    UserError
        If the compiler fails; its messages are kept in a file that the error names.
    """
    compiler = os.environ.get("CXX", "g++")
    header = project / "precompiled.h"
    lines = [f"#include <{name}>" for name in PRECOMPILED_STANDARD] + [f'#include "{name}"' for name in PRECOMPILED]
    header.write_text("\n".join(lines) + "\n")
    sources = next(line for line in (project / "makefile").read_text().splitlines() if line.startswith("SRCS"))
    total = len(sources.split("=")[1].split())
    (project / "make.deps").touch()  # everything is compiled once: there is no need to look for dependencies
    with open(project / "make.log", "w") as log, tqdm(total=total, desc="compiling", unit="file", disable=quiet) as bar:
        command = [compiler, "-c", "-Wno-write-strings", *flags.split(), "-I.", "-x", "c++-header", header.name]
        status = subprocess.call(command, cwd=project, stdout=log, stderr=log)
        command = [
            "make",
            f"-j{os.cpu_count() or 1}",
            f"CXX={compiler}",
            f"OPTIMISATIONS={flags} -include {header.name}",
        ]
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log)
        try:
            while status == 0 and process.poll() is None:
                time.sleep(0.1)
                bar.update(len(list(project.glob("**/*.o"))) - bar.n)
            bar.update(total - bar.n)
        finally:
            process.terminate()
            status = process.wait() or status
    if status:
        kept = Path(tempfile.gettempdir(), "going-deeper-make.log")
        shutil.copy(project / "make.log", kept)
        raise UserError(f"the C++ compiler {compiler} failed; its messages are in {kept}")


def digest(spec: NetSpec, weights: Mapping[str, np.ndarray], more: object) -> str:
    """sha256 over a description, weights and other plain data."""
    sha = hashlib.sha256(json.dumps([spec.to_dict(), more], sort_keys=True).encode())
    for name in sorted(weights):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(weights[name], dtype=np.float32).data)
    return sha.hexdigest()


def toolchain() -> list[str]:
    """What a binary depends on besides the sources: Python packages, the compiler, this processor."""
    from importlib.metadata import version

    compiler = os.environ.get("CXX", "g++")
    path = shutil.which(compiler)
    stamp = f"{path} {os.stat(path).st_mtime_ns}" if path else ""
    return [version("brian2"), version("numpy"), stamp, sys.version, platform.platform(), processor()]


def processor() -> str:
    """The processor's model: binaries are compiled for the very machine (-march=native)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), "")


def sources(*names: str) -> str:
    """Digest of files in ``synapses/``; without names, of all code that generates and makes up binaries."""
    files = [HERE / "synapses" / name for name in names]
    if not files:
        files = [HERE / "network.py", HERE / "standalone.py", *sorted((HERE / "synapses").rglob("*.*"))]
    sha = hashlib.sha256()
    for file in files:
        if file.suffix in (".py", ".cpp", ".h"):
            sha.update(file.read_bytes())
    return sha.hexdigest()
