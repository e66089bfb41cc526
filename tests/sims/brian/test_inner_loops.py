"""The inner loops in C++, compiled with and without vector instructions, against NumPy."""

import itertools
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

import sims.brian
from sims.brian.binary import IN_ORDER

HEADERS = Path(sims.brian.__file__).with_name("include")
SIZE, ROWS, THRESHOLD = 600, 5, 7.0
CHANNELS = (1, 7, 8, 10, 16, 50, 64, 70, 128, 256, 300, 512, 530)
PROGRAM = f"""
#include <cstdio>
#include "inner_loops.h"

template <class T> void write(const T* data, size_t n) {{ fwrite(data, sizeof(T), n, stdout); }}
template <class T> void read(T* data, size_t n) {{ fread(data, sizeof(T), n, stdin); }}

float base[{SIZE}], weights[{ROWS * SIZE}], v[{SIZE}];
vectors::half halves[{ROWS * SIZE}];
int32_t rows[32] = {{3 * {SIZE}, 0, 0, {SIZE}, 4 * {SIZE}, 2 * {SIZE}, 7}};

template <int C> void add() {{
    for (int n = 0; n <= 7; n++) {{
        std::memcpy(v, base, sizeof(v));
        int8_t any = vectors::add_rows<C, false>(v, weights, rows, n, {THRESHOLD}, [](int) {{ return -0.25f; }});
        write(v, {SIZE});
        write(&any, 1);
        std::memcpy(v, base, sizeof(v));
        any = vectors::add_rows<C, true>(v, halves, rows, n, {THRESHOLD}, [](int r) {{ return r + 1.0f; }});
        write(v, {SIZE});
        write(&any, 1);
    }}
}}

int main() {{
    for (int bits = 0; bits < 65536; bits++) {{
        const float wide = vectors::widen(vectors::half{{static_cast<uint16_t>(bits)}});
        write(&wide, 1);
    }}
    read(base, {SIZE});
    read(weights, {ROWS * SIZE});
    read(halves, {ROWS * SIZE});
    {" ".join(f"add<{c}>();" for c in CHANNELS)}
    const uint64_t masks[] = {{0, 1, 1ull << 63, 0x8000800100020004, 0xf0f0f0f0f0f0f0f0, ~0ull}};
    for (const uint64_t mask : masks)
        for (int room = 0; room < 2; room++) {{
            int32_t found[65] = {{}};
            found[64] = -1;
            const int32_t count = vectors::list_marked(mask, 100, found, room);
            write(&count, 1);
            write(found, 65);
        }}
    int8_t marks[70] = {{}};
    marks[1] = marks[4] = marks[63] = marks[64] = 1;
    const int numbers[] = {{0, 4, 9, 63, 64, 70}};
    for (const int n : numbers) {{
        const uint64_t mask = vectors::marked(marks, n);
        write(&mask, 1);
    }}
    for (int n = 0; n < 24; n++) {{
        int32_t* const to = vectors::scratch<int32_t, 0>(32);
        vectors::copy_shifted(to, rows, n, -4);
        write(to, n);
    }}
}}
"""


@pytest.mark.parametrize("flags", [(), ("-mavx",), ("-mavx2", "-mf16c"), ("-march=native",)], ids=" ".join)
def test_vectors_compute_what_numpy_does(tmp_path, flags):
    if flags and platform.machine() != "x86_64":
        pytest.skip("flags of another processor")
    (tmp_path / "main.cpp").write_text(PROGRAM)
    usual = ["g++", "-w", "-O3", "-ffast-math", "-fno-finite-math-only", IN_ORDER, "-std=c++11", f"-I{HEADERS}"]
    subprocess.run([*usual, *flags, "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    rng = np.random.default_rng(0)
    base = (rng.integers(-256, 257, SIZE) / 64).astype(np.float32)
    base[::5] = 0.5  # the threshold itself
    weights = rng.normal(size=(ROWS, SIZE)).astype(np.float32)
    halves = weights.astype(np.float16)
    given = base.tobytes() + weights.tobytes() + halves.tobytes()
    output = subprocess.run([tmp_path / "main"], input=given, capture_output=True, check=True).stdout
    position = 0

    def take(dtype, count):
        nonlocal position
        array = np.frombuffer(output, dtype, count, position)
        position += array.nbytes
        return array

    every_half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(every_half)
    np.testing.assert_array_equal(take(np.float32, 2**16)[finite], every_half[finite].astype(np.float32))

    outcomes = set()
    starts = [3 * SIZE, 0, 0, SIZE, 4 * SIZE, 2 * SIZE, 7]
    for channels, n in itertools.product(CHANNELS, range(8)):
        sums, half_sums = base.copy(), base.copy()
        for r, start in enumerate(starts[:n]):  # the order matters to the last bit
            sums[:channels] -= weights.ravel()[start : start + channels] / 4
            half_sums[:channels] += halves.ravel()[start : start + channels].astype(np.float32) * (r + 1)
        for expected in (sums, half_sums):
            np.testing.assert_array_equal(take(np.float32, SIZE), expected)
            fires = n > 0 and (expected[:channels] >= THRESHOLD).any()
            assert take(np.int8, 1)[0] == fires
            outcomes.add(fires)
    assert outcomes == {False, True}

    for mask in (0, 1, 1 << 63, 0x8000800100020004, 0xF0F0F0F0F0F0F0F0, 2**64 - 1):
        expected = [100 + k for k in range(64) if mask >> k & 1]
        for _ in range(2):  # with room and without
            assert take(np.int32, 1)[0] == len(expected)
            found = take(np.int32, 65)
            np.testing.assert_array_equal(found[: len(expected)], expected)
            assert found[64] == -1  # no more than there is room for
    some, whole = 1 << 1 | 1 << 4, 1 << 1 | 1 << 4 | 1 << 63
    assert take(np.uint64, 6).tolist() == [0, 1 << 1, some, some, whole, whole]
    for n in range(24):
        np.testing.assert_array_equal(take(np.int32, n), (starts + [0] * 25)[:n] - np.int32(4))
    assert position == len(output)
