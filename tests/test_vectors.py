"""The inner loops in C++, compiled with and without vector instructions, against NumPy."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

import sims

HEADERS = Path(sims.__file__).parent / "synapses"
SIZE, LONGEST = 80, 70
PROGRAM = f"""
#include <cstdio>
#include "vectors.h"

template <class T> void write(const T* data, size_t n) {{ fwrite(data, sizeof(T), n, stdout); }}

int main() {{
    for (int bits = 0; bits < 65536; bits++) {{
        const float wide = vectors::widen(vectors::half{{static_cast<uint16_t>(bits)}});
        write(&wide, 1);
    }}
    float base[{SIZE}], weights[{SIZE}], v[{SIZE}];
    vectors::half halves[{SIZE}];
    fread(base, sizeof(float), {SIZE}, stdin);
    fread(weights, sizeof(float), {SIZE}, stdin);
    fread(halves, sizeof(vectors::half), {SIZE}, stdin);
    for (int n = 0; n <= {LONGEST}; n++) {{
        std::memcpy(v, base, sizeof(v));
        vectors::add_scaled(v, weights, n, -0.25f);
        write(v, {SIZE});
        std::memcpy(v, base, sizeof(v));
        vectors::add_scaled(v, halves, n, 0.5f);
        write(v, {SIZE});
    }}
    for (int k = 0; k < {SIZE - 64}; k++) {{
        const uint64_t mask = vectors::reached(base + k, 0.5f);
        write(&mask, 1);
    }}
}}
"""


@pytest.mark.parametrize("flags", [(), ("-mavx",), ("-mavx2", "-mf16c"), ("-march=native",)], ids=" ".join)
def test_vectors_compute_what_numpy_does(tmp_path, flags):
    if flags and platform.machine() != "x86_64":
        pytest.skip("flags of another processor")
    (tmp_path / "main.cpp").write_text(PROGRAM)
    usual = ["g++", "-w", "-O3", "-ffast-math", "-fno-finite-math-only", "-std=c++11", f"-I{HEADERS}"]
    subprocess.run([*usual, *flags, "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    rng = np.random.default_rng(0)
    base, weights = (rng.integers(-256, 257, (2, SIZE)) / 64).astype(np.float32)
    base[::5] = 0.5  # the threshold itself
    halves = (weights * 2).astype(np.float16)
    given = base.tobytes() + weights.tobytes() + halves.tobytes()
    output = subprocess.run([tmp_path / "main"], input=given, capture_output=True, check=True).stdout

    every_half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    widened = np.frombuffer(output, np.float32, 2**16)
    finite = np.isfinite(every_half)
    np.testing.assert_array_equal(widened[finite], every_half[finite].astype(np.float32))

    sums = np.frombuffer(output, np.float32, 2 * (LONGEST + 1) * SIZE, widened.nbytes).reshape(LONGEST + 1, 2, SIZE)
    for n in range(LONGEST + 1):
        inside = np.arange(SIZE) < n
        np.testing.assert_array_equal(sums[n, 0], base - inside * weights / 4)
        np.testing.assert_array_equal(sums[n, 1], base + inside * weights)

    masks = np.frombuffer(output, np.uint64, SIZE - 64, widened.nbytes + sums.nbytes)
    for k, mask in enumerate(masks):
        assert [int(mask) >> bit & 1 for bit in range(64)] == (base[k : k + 64] >= 0.5).tolist()
