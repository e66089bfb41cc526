// The two inner loops that nearly all time goes into, with the vector instructions of x86-64 where there are any.
#ifndef VECTORS_H
#define VECTORS_H

#include <cstdint>
#include <cstring>

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

// v[0..n) += scale * w[0..n)
inline void add_scaled(float* __restrict const v, const float* __restrict const w, const int n, const float scale) {
    for (int k = 0; k < n; k++) v[k] += scale * w[k];
}

inline void add_scaled(float* __restrict const v, const half* __restrict const w, const int n, const float scale) {
    int k = 0;
#ifdef __AVX512F__
    const __m512 factor = _mm512_set1_ps(scale);
    for (; k + 16 <= n; k += 16) {
        const __m512 wide = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + k)));
        _mm512_storeu_ps(v + k, _mm512_fmadd_ps(factor, wide, _mm512_loadu_ps(v + k)));
    }
#elif defined(__F16C__)
    const __m256 factor = _mm256_set1_ps(scale);
    for (; k + 8 <= n; k += 8) {
        const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + k)));
        _mm256_storeu_ps(v + k, _mm256_add_ps(_mm256_mul_ps(factor, wide), _mm256_loadu_ps(v + k)));
    }
#endif
    for (; k < n; k++) v[k] += scale * widen(w[k]);
}

// Fetch n bytes into the second-level cache while something else is computed.
inline void prefetch(const void* const data, const int n) {
    for (int k = 0; k < n; k += 64) __builtin_prefetch(static_cast<const char*>(data) + k, 0, 2);
}

// Bit k tells whether v[k] >= threshold, for 64 neurons.
inline uint64_t reached(const float* const v, const float threshold) {
    uint64_t mask = 0;
#ifdef __AVX512F__
    const __m512 limit = _mm512_set1_ps(threshold);
    for (int k = 0; k < 64; k += 16)
        mask |= static_cast<uint64_t>(_mm512_cmp_ps_mask(_mm512_loadu_ps(v + k), limit, _CMP_GE_OQ)) << k;
#elif defined(__AVX__)
    const __m256 limit = _mm256_set1_ps(threshold);
    for (int k = 0; k < 64; k += 8)
        mask |= static_cast<uint64_t>(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(v + k), limit, _CMP_GE_OQ))) << k;
#else
    for (int k = 0; k < 64; k++) mask |= static_cast<uint64_t>(v[k] >= threshold) << k;
#endif
    return mask;
}

}  // namespace vectors

#endif
