// The inner loops that nearly all time goes into, with the vector instructions of x86-64 where there are any.
#ifndef INNER_LOOPS_H
#define INNER_LOOPS_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
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

template <int W>
struct Vector {
    typedef float type __attribute__((vector_size(4 * W), aligned(4), may_alias));
};
template <int W>
using vector = typename Vector<W>::type;

template <int W>
inline vector<W> load(const float* const x) {
    return *reinterpret_cast<const vector<W>*>(x);
}

template <int W>
inline vector<W> load(const half* const x) {
    vector<W> wide;
    for (int k = 0; k < W; k++) wide[k] = widen(x[k]);
    return wide;
}

// Whether any of x is at least limit.
template <int W>
inline bool any_reached(const vector<W> x, const float limit) {
    bool any = false;
    for (int k = 0; k < W; k++) any |= x[k] >= limit;
    return any;
}

// What the compiler does not find by itself.
#ifdef __AVX512F__
template <>
inline vector<16> load<16>(const half* const x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
}

template <>
inline bool any_reached<16>(const vector<16> x, const float limit) {
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), _mm512_set1_ps(limit), _CMP_GE_OQ);
}
#endif

#ifdef __AVX__
template <>
inline bool any_reached<8>(const vector<8> x, const float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(x), _mm256_set1_ps(limit), _CMP_GE_OQ));
}
#endif

#ifdef __F16C__
template <>
inline vector<8> load<8>(const half* const x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}
#endif

constexpr int AHEAD = 24;  // rows of weights that are asked for while they are needed only later

// v[0..N * W) += factor(r) * (kernel + rows[r])[0..N * W), for one row r after another; returns whether any v is then
// at least the threshold. FAR asks for coming rows, since a large kernel lies outside of the caches; after the last row
// that may be anywhere, which does no harm.
template <int W, int N, bool FAR, class Weight, class Factor>
inline bool add_tile(float* const v, const Weight* const kernel, const int32_t* const rows, const int n, const float threshold,
                     const Factor& factor) {
    vector<W> sum[N];
#pragma GCC unroll 16
    for (int k = 0; k < N; k++) sum[k] = load<W>(v + k * W);
    for (int r = 0; r < n; r++) {
        const Weight* const w = kernel + rows[r];
        const float f = factor(r);
        if (FAR) {
            const char* const later = reinterpret_cast<const char*>(kernel + rows[r + AHEAD]);
            for (int k = 0; k < static_cast<int>(N * W * sizeof(Weight)); k += 64) __builtin_prefetch(later + k, 0, 2);
        }
#pragma GCC unroll 16
        for (int k = 0; k < N; k++) sum[k] += f * load<W>(w + k * W);
    }
    vector<W> largest = sum[0];
#pragma GCC unroll 16
    for (int k = 0; k < N; k++) {
        *reinterpret_cast<vector<W>*>(v + k * W) = sum[k];
        largest = sum[k] > largest ? sum[k] : largest;
    }
    return any_reached<W>(largest, threshold);
}

// The same for v[0..C): what one pixel of C channels receives.
template <int C, bool FAR, class Weight, class Factor>
inline bool add_rows(float* const v, const Weight* const kernel, const int32_t* const rows, const int n, const float threshold,
                     const Factor& factor) {
    constexpr int tile = REGISTERS * LANES, tiles = C / tile * tile, rest = C % tile / LANES, single = C / 4 * 4;
    bool any = false;
    if (n == 0) return any;
    int k = 0;
    for (; k < tiles; k += tile) any |= add_tile<LANES, REGISTERS, FAR>(v + k, kernel + k, rows, n, threshold, factor);
    if (rest) {
        any |= add_tile<LANES, rest ? rest : 1, FAR>(v + k, kernel + k, rows, n, threshold, factor);
        k += rest * LANES;
    }
    if (C - k >= 8) {
        any |= add_tile<8, 1, FAR>(v + k, kernel + k, rows, n, threshold, factor);
        k += 8;
    }
    if (k < single) any |= add_tile<4, 1, FAR>(v + k, kernel + k, rows, n, threshold, factor);
    for (k = single; k < C; k++) {
        float sum = v[k];
        for (int r = 0; r < n; r++) sum += factor(r) * widen(kernel[rows[r] + k]);
        v[k] = sum;
        any |= sum >= threshold;
    }
    return any;
}

// The same in double precision, which needs no speed of ours.
template <int C, bool FAR, class Factor>
inline bool add_rows(double* const v, const double* const kernel, const int32_t* const rows, const int n, const double threshold,
                     const Factor& factor) {
    for (int r = 0; r < n; r++)
        for (int k = 0; k < C; k++) v[k] += factor(r) * (kernel + rows[r])[k];
    bool any = false;
    for (int k = 0; k < C; k++) any |= v[k] >= threshold;
    return any;
}

// Does work(from, to) for all of 0 to n, in bands of neighbours, one a thread.
template <class Work>
inline void in_bands(const int n, const int threads, const Work& work) {
    const int bands = std::min(n, threads);
    if (bands == 1) return work(0, n);
#pragma omp parallel for num_threads(bands) schedule(static)
    for (int k = 0; k < bands; k++) work(n * k / bands, n * (k + 1) / bands);
}

// The same for work(from, to, list) that writes a list, of at most `each` numbers for one of 0 to n, and returns how many.
// Every thread writes at its own place of one list, from which the gaps are taken in the end; returns its length.
template <class Work>
inline int32_t list_in_bands(const int n, const int each, const int threads, int32_t* const list, const Work& work) {
    const int bands = std::min(n, threads);
    if (bands == 1) return work(0, n, list);
    std::map<int, int32_t> found;  // how many, by where the band begins
    for (int k = 0; k < bands; k++) found[n * k / bands] = 0;
    in_bands(n, threads, [&](const int from, const int to) { found.at(from) = work(from, to, list + from * each); });
    int32_t length = 0;
    for (const auto& band : found) {
        std::memmove(list + length, list + band.first * each, band.second * sizeof(int32_t));
        length += band.second;
    }
    return length;
}

// Room for n numbers, and AHEAD after them that may be read and written; it holds memory only where it was used. Those
// who ask for the same ID use it one after another, so that it stays in the caches.
template <class T, int ID>
inline T* scratch(const size_t n) {
    static thread_local std::unique_ptr<T[]> room;
    static thread_local size_t size = 0;
    if (size < n) room.reset(new T[(size = n) + AHEAD]);
    return room.get();
}

// to[0..n) = from[0..n) + shift, eight at a time and at least eight: n is mostly small, and jumps cost more than sums.
inline void copy_shifted(int32_t* const to, const int32_t* const from, const int n, const int32_t shift) {
    typedef int32_t eight __attribute__((vector_size(32), aligned(4), may_alias));
    static_assert(AHEAD >= 8, "scratch has room after its end for what is copied too much");
    int k = 0;
    do {
        *reinterpret_cast<eight*>(to + k) = *reinterpret_cast<const eight*>(from + k) + shift;
        k += 8;
    } while (k < n);
}

constexpr int MARKS = 64;

// Bit k tells whether there is a 1 at place k of n marks; of the first MARKS of them.
inline uint64_t marked(const int8_t* const marks, const int n) {
    uint64_t mask = 0;
#ifdef __AVX512BW__
    if (n >= MARKS) return _mm512_test_epi8_mask(_mm512_loadu_si512(marks), _mm512_set1_epi8(1));
#endif
    int k = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; k + 8 <= n && k < MARKS; k += 8) {  // eight bytes of 0 or 1 to eight bits
        uint64_t eight;
        std::memcpy(&eight, marks + k, 8);
        mask |= eight * 0x0102040810204080ull >> 56 << k;
    }
#endif
    for (; k < n && k < MARKS; k++) mask |= static_cast<uint64_t>(marks[k]) << k;
    return mask;
}

// The places of the bits of a mask, counted from first, in order; returns how many. If there is room for all MARKS, they
// are written without a jump that depends on the mask.
inline int32_t list_marked(const uint64_t mask, const int32_t first, int32_t* const found, const bool room) {
    int32_t count = 0;
#ifdef __AVX512F__
    if (room) {
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (int k = 0; k < MARKS; k += 16) {
            const __mmask16 part = static_cast<__mmask16>(mask >> k);
            _mm512_storeu_si512(found + count, _mm512_maskz_compress_epi32(part, _mm512_add_epi32(lane, _mm512_set1_epi32(first + k))));
            count += __builtin_popcount(part);
        }
        return count;
    }
#endif
    for (uint64_t left = mask; left; left &= left - 1) found[count++] = first + __builtin_ctzll(left);
    return count;
}

}  // namespace vectors

#endif
