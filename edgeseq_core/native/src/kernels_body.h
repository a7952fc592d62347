// The kernels, written once over `lanes.h` and compiled once a set of instructions.
#pragma once

#include <cmath>

#include "kernels.h"
#include "lanes.h"

namespace {

using edgeseq::Attention;
using edgeseq::Best;
using edgeseq::Finish;
using edgeseq::kLanes;
using edgeseq::Mode;
using edgeseq::Product;

// --- numbers to codes ---------------------------------------------------------------------------------

float quantize(const float* x, const float* factor, size_t n, uint8_t* codes) {
  F most = all(0.0f);
  for (size_t i = 0; i < n; i += kLanes) {
    const F value = factor ? load(x + i) * load(factor + i) : load(x + i);
    most = larger(most, magnitude(value));
  }
  const float top = largest(most);
  const F inverse = all(top > 0 ? 127.0f / top : 0.0f);
  for (size_t i = 0; i < n; i += kLanes) {
    const F value = factor ? load(x + i) * load(factor + i) : load(x + i);
    store_codes(codes + i, value * inverse);
  }
  return top / 127.0f;
}

float quantize_few(const float* x, size_t n, uint8_t* codes) {
  float top = 0;
  for (size_t i = 0; i < n; i++) {
    const float size = x[i] < 0 ? -x[i] : x[i];
    top = size > top ? size : top;
  }
  const float inverse = top > 0 ? 127.0f / top : 0.0f;
  for (size_t i = 0; i < n; i++) {
    const float whole = (x[i] * inverse + 12582912.0f) - 12582912.0f;  // to the nearest, ties to even
    codes[i] = static_cast<uint8_t>(static_cast<int>(whole) + kZero);
  }
  return top / 127.0f;
}

void norm(const float* x, const float* gain, size_t n, float* y) {
  F squares = all(0.0f);
  for (size_t i = 0; i < n; i += kLanes) squares = fused(load(x + i), load(x + i), squares);
  const F factor = all(1.0f / std::sqrt(total(squares) / static_cast<float>(n) + 1e-6f));
  for (size_t i = 0; i < n; i += kLanes) store(y + i, load(x + i) * factor * load(gain + i));
}

// --- products -----------------------------------------------------------------------------------------

// What happens to a block of a row's sums.
template <Mode mode, bool low>
struct Finisher {
  const Product& p;

  EDGESEQ_INLINE void operator()(size_t row, size_t block, I sums) const {
    const Finish& own = *p.finish[p.task[row]];
    const size_t at = block * kLanes;
    F y = fused(to_floats(sums), all(p.x_scale[row]) * load(own.scale + at), load(own.bias + at));
    if (low && own.low) {
      const size_t part = own.part_of_block[block];
      const uint8_t* u = p.low_x + row * p.low_stride + part * own.rank;
      const int8_t* w = own.low + block * own.rank * kLanes;
      I more = start(own.low_offset + at);
      for (size_t i = 0; i < own.rank; i += 4) more = dot(more, shared(u + i), weights(w + i * kLanes));
      const F scale = all(p.low_x_scale[row * p.low_scale_stride + part]) * load(own.low_scale + at);
      y = fused(to_floats(more), scale, y);
    }
    float* out = p.y + row * p.y_stride + (block - p.first_block) * kLanes;
    if (mode == Mode::relu) y = larger(y, all(0.0f));
    if (mode == Mode::add) y = load(out) + y;
    store(out, y);
  }
};

struct KeepSums {
  const Product& p;
  int32_t* out;

  EDGESEQ_INLINE void operator()(size_t row, size_t block, I sums) const {
    store(out + row * (p.last_block - p.first_block) * kLanes + (block - p.first_block) * kLanes, sums);
  }
};

template <int R, int B, class Done>
EDGESEQ_INLINE void tile(const Product& p, size_t row, size_t block, const Done& done) {
  const size_t stride = p.matrix.groups * 64;
  const int8_t* w = p.matrix.values + block * stride;
  const uint8_t* x = p.x + row * p.x_stride;
  I sums[R][B];
#pragma GCC unroll 8
  for (int b = 0; b < B; b++) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sums[r][b] = start(p.matrix.offset + (block + b) * kLanes);
  }
  for (size_t g = 0; g < p.matrix.groups; g++, w += 64, x += 4) {
    W column[B];
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) column[b] = weights(w + b * stride);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const X four = shared(x + r * p.x_stride);
#pragma GCC unroll 8
      for (int b = 0; b < B; b++) sums[r][b] = dot(sums[r][b], four, column[b]);
    }
  }
#pragma GCC unroll 8
  for (int b = 0; b < B; b++) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) done(row + r, block + b, sums[r][b]);
  }
}

template <int R, class Done>
__attribute__((noinline)) void strip(const Product& p, size_t row, const Done& done) {
  constexpr int wide = R <= 2 ? kWideBlocks : kTileBlocks;  // few rows need more sums in flight
  size_t block = p.first_block;
  for (; block + wide <= p.last_block; block += wide) tile<R, wide>(p, row, block, done);
  if (wide > 4)
    for (; block + 4 <= p.last_block; block += 4) tile<R, 4>(p, row, block, done);
  if (wide > 2)
    for (; block + 2 <= p.last_block; block += 2) tile<R, 2>(p, row, block, done);
  for (; block < p.last_block; block++) tile<R, 1>(p, row, block, done);
}

// Rows in strips, as even as they go: 8 rows are two strips of 4 rather than 6 and 2.
template <class Done>
void in_strips(const Product& p, const Done& done) {
  const size_t strips = (p.rows + kTileRows - 1) / kTileRows;
  for (size_t s = 0, row = 0; s < strips; s++) {
    const size_t end = p.rows * (s + 1) / strips;
    switch (end - row) {
      case 1: strip<1>(p, row, done); break;
#if !defined(EDGESEQ_PLAIN)
      case 2: strip<2>(p, row, done); break;
      case 3: strip<3>(p, row, done); break;
      case 4: strip<4>(p, row, done); break;
#endif
#if defined(__AVX512F__)
      case 5: strip<5>(p, row, done); break;
      case 6: strip<6>(p, row, done); break;
#endif
    }
    row = end;
  }
}

#if defined(__AMX_INT8__)
#include "amx.h"
#else
template <class Done>
void products(const Product& p, const Done& done) {
  in_strips(p, done);
}
#endif

template <Mode mode>
void project_as(const Product& p) {
  p.low_x ? products(p, Finisher<mode, true>{p}) : products(p, Finisher<mode, false>{p});
}

void project(const Product& p, Mode mode) {
  switch (mode) {
    case Mode::store: return project_as<Mode::store>(p);
    case Mode::relu: return project_as<Mode::relu>(p);
    case Mode::add: return project_as<Mode::add>(p);
  }
}

void sums(const Product& p, int32_t* out) { products(p, KeepSums{p, out}); }

// --- attention ----------------------------------------------------------------------------------------

template <int B>
EDGESEQ_INLINE void score_blocks(const float* q, const float* keys, size_t width, F scale, float* out) {
  F sums[B];
#pragma GCC unroll 4
  for (int b = 0; b < B; b++) sums[b] = all(0.0f);
  for (size_t c = 0; c < width; c++) {
    const F x = all(q[c]);
#pragma GCC unroll 4
    for (int b = 0; b < B; b++) sums[b] = fused(x, load(keys + (b * width + c) * kLanes), sums[b]);
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; b++) store(out + b * kLanes, sums[b] * scale);
}

// Turns scores into weights that still have to be divided by their sum, which it returns.
EDGESEQ_INLINE float weigh(float* scores, size_t count, size_t filled, const float* added) {
  if (added)
    for (size_t i = 0; i < filled; i += kLanes) store(scores + i, load(scores + i) + load(added + i));
  for (size_t i = count; i < filled; i++) scores[i] = -3e38f;
  F most = load(scores);
  for (size_t i = kLanes; i < filled; i += kLanes) most = larger(most, load(scores + i));
  const F top = all(largest(most));
  F sum = all(0.0f);
  for (size_t i = 0; i < filled; i += kLanes) {
    const F weight = exponential(load(scores + i) - top);
    store(scores + i, weight);
    sum = sum + weight;
  }
  return total(sum);
}

template <int B>
EDGESEQ_INLINE void mix(const float* weights, float factor, size_t count, const float* values,
                        size_t stride, float* out) {
  F sums[B];
#pragma GCC unroll 4
  for (int b = 0; b < B; b++) sums[b] = all(0.0f);
  for (size_t i = 0; i < count; i++) {
    const F weight = all(weights[i]);
#pragma GCC unroll 4
    for (int b = 0; b < B; b++) sums[b] = fused(weight, load(values + i * stride + b * kLanes), sums[b]);
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; b++) store(out + b * kLanes, sums[b] * all(factor));
}

void attend(const Attention& a) {
  const size_t filled = edgeseq::padded(a.count, kLanes), together = a.heads / a.kv_heads;
  const F scale = all(1.0f / std::sqrt(static_cast<float>(a.width)));
  for (size_t head = 0; head < a.heads; head++) {
    const float* q = a.query + head * a.width;
    const float* keys = a.keys + head / together * a.key_head_stride;
    size_t i = 0;
    for (; i + 32 <= filled; i += 32) score_blocks<2>(q, keys + i * a.width, a.width, scale, a.scores + i);
    for (; i < filled; i += 16) score_blocks<1>(q, keys + i * a.width, a.width, scale, a.scores + i);
    const float factor = 1.0f / weigh(a.scores, a.count, filled, a.added);
    const float* values = a.values + head / together * a.width;
    float* out = a.out + head * a.width;
    size_t c = 0;
    for (; c + 32 <= a.width; c += 32)
      mix<2>(a.scores, factor, a.count, values + c, a.value_stride, out + c);
    for (; c < a.width; c += 16) mix<1>(a.scores, factor, a.count, values + c, a.value_stride, out + c);
  }
}

void turn(float* heads, size_t count, size_t width, const float* cosine, const float* sine) {
  const size_t pairs = width / 4;
  for (size_t head = 0; head < count; head++, heads += width) {
    for (size_t i = 0; i < pairs; i++) {
      const float a = heads[i], b = heads[i + pairs];
      heads[i] = a * cosine[i] - b * sine[i];
      heads[i + pairs] = a * sine[i] + b * cosine[i];
    }
  }
}

// --- the next token -----------------------------------------------------------------------------------

Best best(const float* x, size_t n) {
  F most = all(-INFINITY);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = larger(most, load(x + i));
  float top = largest(most);
  for (; i < n; i++) top = x[i] > top ? x[i] : top;
  uint32_t at = 0;
  while (at + 1 < n && x[at] != top) at++;
  return {top, at};
}

float log_total(const float* x, size_t n, float top, float factor) {
  const F from = all(top), by = all(factor);
  F sum = all(0.0f);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = sum + exponential((load(x + i) - from) * by);
  if (i < n) {
    alignas(64) float rest[kLanes];
    for (size_t j = 0; j < kLanes; j++) rest[j] = i + j < n ? x[i + j] : -INFINITY;
    sum = sum + exponential((load(rest) - from) * by);
  }
  return top * factor + std::log(total(sum));
}

}  // namespace

#define EDGESEQ_KERNELS(name)                                                                     \
  const edgeseq::Kernels* edgeseq::kernels_##name() {                                             \
    static constexpr edgeseq::Kernels table = {#name, kZero,  quantize, quantize_few, norm,       \
                                               project, sums, attend,   turn,         best,       \
                                               log_total};                                        \
    return &table;                                                                                \
  }
