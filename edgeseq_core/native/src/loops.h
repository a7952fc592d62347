// The plain loops that reading a calibration spends its time in, compiled for every CPU, and once more for
// wider registers.
//
// All give the same bits: they convert, compare and add integers, and round each product and sum by itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace edgeseq {

struct Seen {
  bool any, least;  // whether a value was not 0, and whether one was -128
};

struct Loops {
  // `count` fp16 numbers, which need not be aligned; false where one of them is not finite.
  bool (*widen)(const char* from, size_t count, float* out);
  // `count` rows, the first of them row `first` of a matrix (`kernels.h`).
  void (*pack)(const int8_t* rows, size_t count, size_t columns, size_t first, const Places&, int8_t* values);
  // -128 * the sum of each row; false where a value is -128, which no symmetric int8 has.
  bool (*offsets)(const int8_t* rows, size_t count, size_t columns, int32_t* out);
  // Adds to all values; what they were before.
  Seen (*add)(int8_t* values, size_t count, int8_t more);
  void (*scale)(const float* x, const float* factor, size_t count, float* out);  // x * (1 + factor)
  void (*shift)(const float* more, size_t count, float* out);                    // out += more
};

const Loops* loops_plain();
const Loops* loops_avx2();  // null where it was not compiled; whether the CPU has it is another question
const Loops& loops();       // the best that run here

}  // namespace edgeseq
