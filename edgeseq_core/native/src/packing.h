// Rows of bytes into the blocks of `kernels.h`, a few at a time.  For `loops_body.h`, so that all is of one file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace {

// Four bytes of four rows, as compilers of both kinds put them into one register.
typedef int32_t FourOfFour __attribute__((vector_size(16)));

#if defined(__clang__)
#define EDGESEQ_PICK(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#else
#define EDGESEQ_PICK(x, y, a, b, c, d) __builtin_shuffle(x, y, FourOfFour{a, b, c, d})
#endif

// Four rows of `columns` bytes, a multiple of 16, one after another, to 16 bytes of each group.
void pack_four(const int8_t* rows, size_t columns, size_t step, int8_t* to) {
  for (size_t c = 0; c < columns; c += 16) {
    FourOfFour row[4], pair[4];
    for (size_t r = 0; r < 4; r++) std::memcpy(&row[r], rows + r * columns + c, 16);
    pair[0] = EDGESEQ_PICK(row[0], row[1], 0, 4, 1, 5);
    pair[1] = EDGESEQ_PICK(row[0], row[1], 2, 6, 3, 7);
    pair[2] = EDGESEQ_PICK(row[2], row[3], 0, 4, 1, 5);
    pair[3] = EDGESEQ_PICK(row[2], row[3], 2, 6, 3, 7);
    for (size_t h = 0; h < 2; h++, to += 2 * step) {
      const FourOfFour low = EDGESEQ_PICK(pair[h], pair[h + 2], 0, 1, 4, 5),
                       high = EDGESEQ_PICK(pair[h], pair[h + 2], 2, 3, 6, 7);
      std::memcpy(to, &low, 16);
      std::memcpy(to + step, &high, 16);
    }
  }
}

// The same of 8 bytes a row.
void pack_four_short(const int8_t* rows, size_t step, int8_t* to) {
#if defined(__AVX2__)
  const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows));
  const __m256i both = _mm256_permutevar8x32_epi32(four, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  const __m128i first = _mm256_castsi256_si128(both), second = _mm256_extracti128_si256(both, 1);
#else
  FourOfFour two[2];
  std::memcpy(two, rows, 32);
  const FourOfFour first = EDGESEQ_PICK(two[0], two[1], 0, 2, 4, 6), second = EDGESEQ_PICK(two[0], two[1], 1, 3, 5, 7);
#endif
  std::memcpy(to, &first, 16);
  std::memcpy(to + step, &second, 16);
}

#undef EDGESEQ_PICK

// `count` rows, the first of them row `first` of a matrix.
void pack(const int8_t* rows, size_t count, size_t columns, size_t first, const edgeseq::Places& places, int8_t* values) {
  const auto place = [&](size_t row) { return values + places.at(row / 16) + row % 16 * 4; };
  const auto step = [&](size_t row) { return places.step(row / 16); };
  size_t i = 0;
  if (first % 4 == 0 && columns % 16 == 0) {
    for (; i + 4 <= count; i += 4) pack_four(rows + i * columns, columns, step(first + i), place(first + i));
  } else if (first % 4 == 0 && columns == 8) {
    for (; i + 4 <= count; i += 4) pack_four_short(rows + i * columns, step(first + i), place(first + i));
  }
  for (; i < count; i++) {
    const int8_t* row = rows + i * columns;
    int8_t* to = place(first + i);
    for (size_t c = 0; c < columns; c += 4, to += step(first + i)) std::memcpy(to, row + c, std::min<size_t>(4, columns - c));
  }
}

}  // namespace
