// Rows of bytes into the blocks of `kernels.h`, a few at a time: what a swap does most of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace edgeseq {

// Four bytes of four rows, as compilers of both kinds put them into one register.
typedef int32_t FourOfFour __attribute__((vector_size(16)));

#if defined(__clang__)
#define EDGESEQ_PICK(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#else
#define EDGESEQ_PICK(x, y, a, b, c, d) __builtin_shuffle(x, y, FourOfFour{a, b, c, d})
#endif

// Four rows of `columns` bytes, a multiple of 16, one after another: to[columns / 4][64], of which 16 bytes are theirs.
inline void pack_four(const int8_t* rows, size_t columns, int8_t* to) {
  for (size_t c = 0; c < columns; c += 16) {
    FourOfFour row[4], pair[4];
    for (size_t r = 0; r < 4; r++) std::memcpy(&row[r], rows + r * columns + c, 16);
    pair[0] = EDGESEQ_PICK(row[0], row[1], 0, 4, 1, 5);
    pair[1] = EDGESEQ_PICK(row[0], row[1], 2, 6, 3, 7);
    pair[2] = EDGESEQ_PICK(row[2], row[3], 0, 4, 1, 5);
    pair[3] = EDGESEQ_PICK(row[2], row[3], 2, 6, 3, 7);
    for (size_t h = 0; h < 2; h++) {
      const FourOfFour low = EDGESEQ_PICK(pair[h], pair[h + 2], 0, 1, 4, 5),
                       high = EDGESEQ_PICK(pair[h], pair[h + 2], 2, 3, 6, 7);
      std::memcpy(to + (c + 8 * h) * 16, &low, 16);
      std::memcpy(to + (c + 8 * h + 4) * 16, &high, 16);
    }
  }
}

// The same of 8 bytes a row.
inline void pack_four_short(const int8_t* rows, int8_t* to) {
  FourOfFour two[2];
  std::memcpy(two, rows, 32);
  const FourOfFour first = EDGESEQ_PICK(two[0], two[1], 0, 2, 4, 6), second = EDGESEQ_PICK(two[0], two[1], 1, 3, 5, 7);
  std::memcpy(to, &first, 16);
  std::memcpy(to + 64, &second, 16);
}

#undef EDGESEQ_PICK

// `count` rows from row `first` of blocks that have `groups` of 4 columns.
inline void pack(const int8_t* rows, size_t count, size_t columns, size_t first, size_t groups, int8_t* blocks) {
  const auto place = [&](size_t row) { return blocks + row / 16 * groups * 64 + row % 16 * 4; };
  size_t i = 0;
  if (first % 4 == 0 && columns % 16 == 0) {
    for (; i + 4 <= count; i += 4) pack_four(rows + i * columns, columns, place(first + i));
  } else if (first % 4 == 0 && columns == 8) {
    for (; i + 4 <= count; i += 4) pack_four_short(rows + i * columns, place(first + i));
  }
  for (; i < count; i++) {
    const int8_t* row = rows + i * columns;
    int8_t* to = place(first + i);
    size_t c = 0;
    for (; c + 4 <= columns; c += 4) std::memcpy(to + c * 16, row + c, 4);
    for (; c < columns; c++) to[c / 4 * 64 + c % 4] = row[c];
  }
}

inline int32_t sum(const int8_t* row, size_t count) {
  int32_t out = 0;
  size_t i = 0;
#if defined(__SSE2__)
  const __m128i half = _mm_set1_epi8(-128), zero = _mm_setzero_si128();  // value + 128 is not negative
  __m128i total = zero;
  for (; i + 16 <= count; i += 16) {
    const __m128i own = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i));
    total = _mm_add_epi32(total, _mm_sad_epu8(_mm_xor_si128(own, half), zero));
  }
  out = _mm_cvtsi128_si32(total) + _mm_cvtsi128_si32(_mm_unpackhi_epi64(total, total)) - 128 * static_cast<int32_t>(i);
#endif
  for (; i < count; i++) out += row[i];
  return out;
}

}  // namespace edgeseq
