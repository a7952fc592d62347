// The loops of `loops.h`, for a file that is compiled with the flags of one set of instructions.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "half.h"
#include "loops.h"
#include "packing.h"

namespace {

bool widen(const char* from, size_t count, float* out) {
  size_t i = 0;
  int bad = 0;
#if defined(__F16C__)
  const __m128i top = _mm_set1_epi16(0x7c00);  // the exponent of what is not finite
  __m128i found = _mm_setzero_si128();
  for (; i + 8 <= count; i += 8) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    found = _mm_or_si128(found, _mm_cmpeq_epi16(_mm_and_si128(eight, top), top));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(eight));
  }
  bad = _mm_movemask_epi8(found);
#endif
  return edgeseq::widen_plainly(from + 2 * i, count - i, out + i) && !bad;
}

// Bytes are summed eight at a time as what they are above -128 (`psadbw`), and the least of them is kept.
bool offsets(const int8_t* rows, size_t count, size_t columns, int32_t* out) {
  uint8_t bad = 0;
  for (size_t row = 0; row < count; row++) {
    const int8_t* values = rows + row * columns;
    size_t i = 0;
    int32_t sum = 0;
#if defined(__AVX2__)
    const __m256i half = _mm256_set1_epi8(-128), zero = _mm256_setzero_si256();
    __m256i total = zero, least = half;
    for (; i + 32 <= columns; i += 32) {
      const __m256i above = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i)), half);
      total = _mm256_add_epi64(total, _mm256_sad_epu8(above, zero));
      least = _mm256_min_epu8(least, above);
    }
    bad |= _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, zero)) != 0;
    const __m128i both = _mm_add_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    sum = _mm_cvtsi128_si32(both) + _mm_cvtsi128_si32(_mm_unpackhi_epi64(both, both)) - 128 * static_cast<int32_t>(i);
#endif
    for (; i < columns; i++) sum += values[i], bad |= values[i] == -128;
    out[row] = -128 * sum;
  }
  return !bad;
}

edgeseq::Seen add(int8_t* values, size_t count, int8_t more) {
  uint8_t any = 0, least = 0;
  for (size_t i = 0; i < count; i++) {
    const int8_t own = values[i];
    any |= static_cast<uint8_t>(own);
    least |= own == -128;
    values[i] = static_cast<int8_t>(own + more);
  }
  return {any != 0, least != 0};
}

void scale(const float* __restrict x, const float* __restrict factor, size_t count, float* __restrict out) {
  for (size_t n = 0; n < count; n++) out[n] = x[n] * (1 + factor[n]);
}

void shift(const float* __restrict more, size_t count, float* __restrict out) {
  for (size_t n = 0; n < count; n++) out[n] += more[n];
}

}  // namespace

#define EDGESEQ_LOOPS(set)                                                     \
  const edgeseq::Loops* edgeseq::loops_##set() {                               \
    static const Loops here{widen, pack, offsets, add, scale, shift};          \
    return &here;                                                              \
  }
