"""From the C++ project that Brian2 generates, a file for each object, to a few translation units, and to a program."""

import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from tqdm import tqdm

from netspec.errors import UserError

__all__ = ["compile_units", "join_units"]

SCAFFOLD = ("objects", "network", "run", "synapses_classes", "main")  # what runs once: compiled fast, not made fast
ZEROS = re.compile(r"(\w+) = new (\w+)\[(\d+)\];\s*for\(int i=0; i<\3; i\+\+\) \1\[i\] = 0;")


def join_units(project: Path, parts: int, results: bool) -> dict[str, str]:
    """Write the project's code as ``parts`` files of time steps, and one that surrounds them.

    ``results`` tells whether the program leaves its variables, and the time of each object, for Brian2 to read.
    Returns the optimisation of each file, by its name.
    """
    units: list[list[str]] = [[] for _ in range(parts)]
    largest_first = sorted(project.glob("code_objects/*.cpp"), key=lambda file: (-file.stat().st_size, file.name))
    for k, file in enumerate(largest_first):
        code = file.read_text()
        if "namespace {" in code:  # helpers of this object, which others have by the same names
            code = code.replace("namespace {", f"namespace helpers_{k} {{")
            code = code.replace("using namespace brian;", f"using namespace brian; using namespace helpers_{k};")
        units[k % parts].append(code)
    scaffold = {name: (project / f"{name}.cpp").read_text() for name in SCAFFOLD}
    objects, zeros = scaffold["objects"], r"\1 = static_cast<\2*>(run_input::zeros(\3 * sizeof(\2)));"
    scaffold["objects"] = '#include "run_input.h"\n' + ZEROS.sub(zeros, objects)
    if not results:
        written = re.compile(r"(?<=void _write_arrays\(\)\n\{\n).*?(?=^\}$)", re.S | re.M)
        scaffold["objects"] = written.sub("", scaffold["objects"])
    files = {f"unit_{k}.cpp": code for k, code in enumerate(units) if code} | {"scaffold.cpp": list(scaffold.values())}
    for name, texts in files.items():
        (project / name).write_text("\n".join(texts))
    return {name: "-O0" if name == "scaffold.cpp" else "" for name in files}


def compile_units(
    project: Path, units: dict[str, str], compiler: list[str], flags: list[str], openmp: bool, quiet: bool
) -> None:
    """Compile the files, all at the same time, with a progress bar, and link them to ``main``.

    The flags are not for linking: with ``-ffast-math`` the program would take the smallest numbers for 0.

    Raises
    ------
    UserError
        If the compiler fails; its messages are kept in a file that the error names.
    """
    threads = ["-fopenmp"] if openmp else []
    link = re.search(r"^LFLAGS = (.*)$", (project / "makefile").read_text(), re.M)
    commands = [[*compiler, "-c", *flags, *threads, *own.split(), "-I.", name] for name, own in units.items()]
    commands.append([*compiler, *threads, *(f"{Path(name).stem}.o" for name in units), "-o", "main"])
    commands[-1] += shlex.split(link[1]) if link else []
    with (
        (project / "compiler.log").open("wb") as log,
        tqdm(total=len(commands), desc="compiling", disable=quiet) as bar,
    ):
        running = [subprocess.Popen(command, cwd=project, stdout=log, stderr=log) for command in commands[:-1]]
        status = 0
        try:
            for process in running:
                status = process.wait() or status
                bar.update(1)
            status = status or subprocess.call(commands[-1], cwd=project, stdout=log, stderr=log)
            bar.update(1)
        finally:
            for process in running:
                process.kill()
    if status:
        handle, kept = tempfile.mkstemp(prefix="going-deeper-compiler-", suffix=".log")
        told = (project / "compiler.log").read_bytes()
        os.write(handle, told)
        os.close(handle)
        lines = told.decode(errors="replace").strip().splitlines() or ["without a word"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise UserError(f"the C++ compiler {shlex.join(compiler)} failed ({first}); its messages are in {kept}")
