// What each set of instructions provides, and which of them this CPU has.
//
// A matrix [N, K] of bytes is packed once for all of them: blocks of 16 rows, in each block groups of 4
// columns, 64 bytes a group.  Four blocks lie abreast, their groups take turns, so that what is read together
// lies together: [N / 64][K / 4][4 blocks][16 rows][4 columns].  N is filled up to a multiple of 16 and K to
// one of 64 with zeros; of the last blocks fewer may lie abreast.  AVX-512 reads a group as one register, AVX2
// as two, NEON as four, and AMX sixteen of a block as one tile.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseq {

constexpr size_t kLanes = 16;   // rows a block
constexpr size_t kDepth = 64;   // what K is a multiple of
constexpr size_t kAbreast = 4;  // blocks whose groups take turns
constexpr size_t kRowsAhead = 32;  // rows of codes that may be read (never used) after the last

constexpr size_t padded(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Where in memory a matrix's groups are.
struct Places {
  size_t groups, blocks;

  // The first group of a block, in bytes.
  size_t at(size_t block) const { return (block / kAbreast * kAbreast * groups + block % kAbreast) * 64; }
  // From a block's group to its next, in bytes.
  size_t step(size_t block) const {
    const size_t left = blocks - block / kAbreast * kAbreast;
    return (left < kAbreast ? left : kAbreast) * 64;
  }
};

struct PackedView {
  const int8_t* values;   // aligned to 64 bytes
  const int32_t* offset;  // -128 * the sum of each row's weights
  Places places;
};

// What makes numbers of a task's sums: y = sum * x_scale * scale + bias, and B u of its low-rank part where
// it has one (`low`: B packed, `Kernels::zero` added to each byte, `rank` filled up to a multiple of 4).
struct Finish {
  const float* scale;
  const float* bias;
  const int8_t* low = nullptr;
  const float* low_scale = nullptr;
  const uint8_t* part_of_block = nullptr;  // which u a block reads
  size_t rank = 0;
};

enum class Mode { store, relu, add };  // y = ..., y = max(0, ...), y += ...

// Of a row's u: what its codes are worth, and what sums begin at, -zero * the sum of the codes.
struct LowScale {
  float scale;
  int32_t start;
};

// Codes of u = A x (signed everywhere) of all parts, `rank` a part.
struct LowRank {
  const uint8_t* codes;
  size_t stride;          // of a row's codes
  const LowScale* scale;  // [rows, parts]
  size_t parts;
};

// Some parts of u of some rows, to become such codes.
struct Few {
  const float* from;  // u of the first part; a row's parts lie together, `rank` a part
  size_t stride, rows, parts, rank;
  uint8_t* codes;
  size_t codes_stride;
  LowScale* scale;
  size_t scale_stride;
};

// y[:, block range] for `rows` rows of codes.  A row's result depends on its own codes, scale and task alone.
struct Product {
  PackedView matrix;
  size_t first_block, last_block;
  const uint8_t* x;  // [rows + kRowsAhead, x_stride]
  size_t x_stride;
  const float* x_scale;  // [rows]
  size_t rows;
  const Finish* const* finish;  // one a task of the batch
  const uint16_t* task;         // [rows]
  const LowRank* low;           // null: no task of the batch has such a part here
  float* y;  // column 0 is the first block's first row
  size_t y_stride;
  const int8_t* then = nullptr;  // weights that the next product reads; all but AMX may ask for them meanwhile
  size_t then_bytes = 0;
};

// Queries of all heads against keys and values.
struct Attention {
  const float* query;  // [queries, query_stride], a row's heads one after another
  size_t queries, query_stride, heads, kv_heads, width;
  const float *keys, *values;   // [count] of a head are `stride` apart
  size_t stride, head_stride;
  size_t count;
  const float* added;  // to each key's score, [count filled up to 16]; null: nothing
  float* scratch;      // `scratch_size` floats
  float* out;          // [queries, out_stride]
  size_t out_stride;

  // Scores of all heads of one query and a factor each, or of sixteen queries of one head, which are turned over.
  static constexpr size_t scratch_size(size_t heads, size_t width, size_t count) {
    const size_t one = heads * (padded(count, kLanes) + 1), several = kLanes * (1 + width + count);
    return one > several ? one : several;
  }
};

struct Best {
  float value;
  uint32_t at;
};

struct Kernels {
  const char* name;
  int zero;  // what is added to an int8 activation to make its code

  // Codes of x (times `factor` where there is one), n a multiple of 16; returns the scale.
  float (*quantize)(const float* x, const float* factor, size_t n, uint8_t* codes);
  // The same for a few numbers a part, whose codes are signed everywhere.
  void (*quantize_few)(const Few&);
  // The same after an RMSNorm, times `factor` where there is one; y is scratch of n numbers.
  float (*normed)(const float* x, const float* gain, const float* factor, size_t n, float* y, uint8_t* codes);
  void (*project)(const Product&, Mode);
  // Exact sums [rows, N] of `product`, for tests.
  void (*sums)(const Product&, int32_t* out);
  void (*attend)(const Attention&);
  // The weights that one query of one head gives to keys, without values: into `out`, [count filled up to 16].
  void (*point)(const Attention&);
  // Rotary turn of the first half of each head, in place.
  void (*turn)(float* heads, size_t count, size_t width, const float* cosine, const float* sine);
  Best (*best)(const float* x, size_t n);  // the first of the largest
  // log sum exp(x * factor), given the largest x.
  float (*log_total)(const float* x, size_t n, float largest, float factor);
};

// Each is null where it was not compiled; whether the CPU has it is another question.
const Kernels* kernels_plain();
const Kernels* kernels_avx2();
const Kernels* kernels_avxvnni();
const Kernels* kernels_avx512();
const Kernels* kernels_amx();
const Kernels* kernels_neon();

// All that run here, best first.
const Kernels* const* available(size_t* count);
// By name; null where it does not run here.
const Kernels* named(const char* name);

}  // namespace edgeseq
