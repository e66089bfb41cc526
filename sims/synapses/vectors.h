// The inner loops that nearly all time goes into, with the vector instructions of x86-64 where there are any.
#ifndef VECTORS_H
#define VECTORS_H

#include <cstdint>
#include <cstring>
#include <memory>

#ifdef __AVX__
#include <immintrin.h>
#endif

namespace vectors {

// A weight in half precision (IEEE 754 binary16): kept so where that loses nothing, it halves the traffic of memory.
struct half {
    uint16_t bits;
};

inline float widen(const half h) {
#ifdef __F16C__
    return _cvtsh_ss(h.bits);
#else
    const int exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
    const float size = exponent ? (1024 + fraction) * (exponent > 25 ? float(1 << (exponent - 25)) : 1.0f / (1 << (25 - exponent)))
                                : fraction * (1.0f / (1 << 24));
    return h.bits >> 15 ? -size : size;
#endif
}

inline float widen(const float x) { return x; }

// As many numbers as a register holds, and how many registers sums are kept in.
#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 16;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 8;
#else
constexpr int LANES = 4, REGISTERS = 8;
#endif
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

constexpr int AHEAD = 24;  // rows of weights that are asked for while they are needed only later
typedef int32_t eight __attribute__((vector_size(32), aligned(4), may_alias));

inline lanes load(const float* const x) { return *reinterpret_cast<const lanes*>(x); }

inline lanes load(const half* const x) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
#else
    lanes wide;
    for (int k = 0; k < LANES; k++) wide[k] = widen(x[k]);
    return wide;
#endif
}

// v[0..N * LANES) += factor(r) * (first + rows[r])[0..N * LANES), for one row r after another. FAR asks for coming
// rows, since a large kernel lies outside of the caches.
template <int N, bool FAR, class Weight, class Factor>
inline void add_tile(float* const v, const Weight* const first, const int32_t* const rows, const int n, const Factor& factor) {
    lanes sum[N];
#pragma GCC unroll 16
    for (int k = 0; k < N; k++) sum[k] = load(v + k * LANES);
    for (int r = 0; r < n; r++) {
        const Weight* const w = first + rows[r];
        const float f = factor(r);
        if (FAR) {
            const char* const later = reinterpret_cast<const char*>(first + rows[r + AHEAD]);
            for (int k = 0; k < static_cast<int>(N * LANES * sizeof(Weight)); k += 64) __builtin_prefetch(later + k, 0, 2);
        }
#pragma GCC unroll 16
        for (int k = 0; k < N; k++) sum[k] += f * load(w + k * LANES);
    }
#pragma GCC unroll 16
    for (int k = 0; k < N; k++) *reinterpret_cast<lanes*>(v + k * LANES) = sum[k];
}

// The same for v[0..C): what one pixel of C channels receives.
template <int C, bool FAR, class Weight, class Factor>
inline void add_rows(float* const v, const Weight* const first, const int32_t* const rows, const int n, const Factor& factor) {
    constexpr int tile = REGISTERS * LANES, tiles = C / tile * tile, rest = C % tile / LANES;
    if (n == 0) return;
    for (int k = 0; k < tiles; k += tile) add_tile<REGISTERS, FAR>(v + k, first + k, rows, n, factor);
    if (rest) add_tile<rest ? rest : 1, FAR>(v + tiles, first + tiles, rows, n, factor);
    for (int r = 0; r < n && C % LANES; r++)
        for (int k = C / LANES * LANES; k < C; k++) v[k] += factor(r) * widen(first[rows[r] + k]);
}

// Room for n numbers, and some behind them that may be read and written. Those who ask for the same ID use it one after
// another, so that it stays in the caches.
template <class T, int ID>
inline T* scratch(const size_t n) {
    static std::unique_ptr<T[]> room;
    static size_t size = 0;
    if (size < n) room.reset(new T[(size = n) + AHEAD]);
    return room.get();
}

// to[0..n) = from[0..n) + shift, eight at a time and at least eight: n is mostly small, and jumps cost more than sums.
inline int copy_shifted(int32_t* const to, const int32_t* const from, const int n, const int32_t shift) {
    int k = 0;
    do {
        *reinterpret_cast<eight*>(to + k) = *reinterpret_cast<const eight*>(from + k) + shift;
        k += 8;
    } while (k < n);
    return n;
}

// All k with v[k] >= threshold, in order; returns how many. There is room for n in found.
inline int32_t find_reached(const float* const v, const int32_t n, const float threshold, int32_t* const found) {
    int32_t count = 0, k = 0;
#if defined(__AVX512F__)
    const __m512 limit = _mm512_set1_ps(threshold);
    __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; k + 16 <= n; k += 16, numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(16))) {
        const __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(v + k), limit, _CMP_GE_OQ);
        _mm512_storeu_si512(found + count, _mm512_maskz_compress_epi32(mask, numbers));
        count += __builtin_popcount(mask);
    }
#elif defined(__AVX__)
    const __m256 limit = _mm256_set1_ps(threshold);
    for (; k + 8 <= n; k += 8) {
        int mask = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(v + k), limit, _CMP_GE_OQ));
        for (; mask; mask &= mask - 1) found[count++] = k + __builtin_ctz(mask);
    }
#endif
    for (; k < n; k++)
        if (v[k] >= threshold) found[count++] = k;
    return count;
}

}  // namespace vectors

#endif
