// The kernels, written once over `lanes.h` and compiled once a set of instructions.
#pragma once

#include <cmath>

#include "kernels.h"
#include "lanes.h"

namespace {

using edgeseq::Attention;
using edgeseq::Best;
using edgeseq::Few;
using edgeseq::Finish;
using edgeseq::kAbreast;
using edgeseq::kLanes;
using edgeseq::LowScale;
using edgeseq::Mode;
using edgeseq::Places;
using edgeseq::Product;

// --- numbers to codes ---------------------------------------------------------------------------------

EDGESEQ_INLINE F value(const float* x, const float* factor, size_t at) {
  return factor ? load(x + at) * load(factor + at) : load(x + at);
}

// Codes of x (times `factor`), whose largest magnitudes, sixteen of them, are given; returns the scale.
EDGESEQ_INLINE float to_codes(const float* x, const float* factor, size_t n, F most, uint8_t* codes) {
  const float top = largest(most);
  const F inverse = all(top > 0 ? 127.0f / top : 0.0f);
  for (size_t at = 0; at < n; at += kLanes) store_codes(codes + at, value(x, factor, at) * inverse);
  return top / 127.0f;
}

float quantize(const float* x, const float* factor, size_t n, uint8_t* codes) {
  F most[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
  size_t at = 0;
  for (; at + 4 * kLanes <= n; at += 4 * kLanes)
    repeat<4>([&](auto i) EDGESEQ_LAMBDA {
      most[i] = larger(most[i], magnitude(value(x, factor, at + i * kLanes)));
    });
  for (; at < n; at += kLanes) most[0] = larger(most[0], magnitude(value(x, factor, at)));
  return to_codes(x, factor, n, larger(larger(most[0], most[1]), larger(most[2], most[3])), codes);
}

// A row's few numbers of one part.
EDGESEQ_INLINE LowScale to_few_codes(const float* x, size_t n, uint8_t* codes) {
  const auto left = [=](size_t at) { return n - at < kLanes ? n - at : kLanes; };
  F most = all(0.0f);
  for (size_t at = 0; at < n; at += kLanes) most = larger(most, magnitude(load_first(x + at, left(at))));
  const float top = largest(most);
  const F inverse = all(top > 0 ? 127.0f / top : 0.0f);
  int32_t sum = 0;
  for (size_t at = 0; at < n; at += kLanes)
    sum += store_signed(codes + at, load_first(x + at, left(at)) * inverse, left(at));
  return {top / 127.0f, -kZero * sum};
}

// `rank` is a constant where it is the usual one, so that compilers leave out loops and masks.
EDGESEQ_INLINE void quantize_few(const Few& few, size_t rank) {
  for (size_t row = 0; row < few.rows; row++)
    for (size_t part = 0; part < few.parts; part++)
      few.scale[row * few.scale_stride + part] = to_few_codes(few.from + row * few.stride + part * rank, rank,
                                                              few.codes + row * few.codes_stride + part * rank);
}

void quantize_few(const Few& few) {
  few.rank == 8 ? quantize_few(few, 8) : quantize_few(few, few.rank);
}

float normed(const float* x, const float* gain, const float* more, size_t n, float* y, uint8_t* codes) {
  F squares[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
  size_t at = 0;
  for (; at + 4 * kLanes <= n; at += 4 * kLanes)
    repeat<4>([&](auto i) EDGESEQ_LAMBDA {
      const F some = load(x + at + i * kLanes);
      squares[i] = fused(some, some, squares[i]);
    });
  for (; at < n; at += kLanes) squares[0] = fused(load(x + at), load(x + at), squares[0]);
  const float sum = total((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const F factor = all(1.0f / std::sqrt(sum / static_cast<float>(n) + 1e-6f));
  F most[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
  const auto at_place = [&](size_t place, F* top) EDGESEQ_LAMBDA {
    F made = load(x + place) * factor * load(gain + place);
    if (more) made = made * load(more + place);
    store(y + place, made);
    *top = larger(*top, magnitude(made));
  };
  for (at = 0; at + 4 * kLanes <= n; at += 4 * kLanes)
    repeat<4>([&](auto i) EDGESEQ_LAMBDA { at_place(at + i * kLanes, &most[i]); });
  for (; at < n; at += kLanes) at_place(at, &most[0]);
  return to_codes(y, nullptr, n, larger(larger(most[0], most[1]), larger(most[2], most[3])), codes);
}

// --- products -----------------------------------------------------------------------------------------

// What happens to a block's sums of `count` rows, `stride` apart: numbers, into y.
struct Finisher {
  const Product& p;
  const Mode mode;

  EDGESEQ_INLINE void operator()(size_t row, size_t count, size_t block, const int32_t* sums,
                                 size_t stride) const {
    for (size_t end; count; row = end) {  // rows of one task lie together
      const uint16_t task = p.task[row];
      end = row + 1;
      if (p.task[row + count - 1] == task) {
        end = row + count;
      } else {
        while (p.task[end] == task) end++;
      }
      const size_t own = end - row;
      of_task(*p.finish[task], row, own, block, sums, stride);
      sums += own * stride;
      count -= own;
    }
  }

  // Asks for what a tile's rows will read, where they are of several tasks: it lies far away, here and there.
  EDGESEQ_INLINE void expect(size_t row, size_t rows, size_t block, size_t blocks) const {
    if (p.task[row + rows - 1] == p.task[row]) return;
    for (size_t r = 0; r < rows; r++) {
      if (r && p.task[row + r] == p.task[row + r - 1]) continue;
      const Finish& own = *p.finish[p.task[row + r]];
      const size_t at = block * kLanes;
      for (size_t b = 0; b < blocks * kLanes; b += kLanes) {
        __builtin_prefetch(own.scale + at + b);
        __builtin_prefetch(own.bias + at + b);
        if (own.low) __builtin_prefetch(own.low_scale + at + b);
      }
      if (own.low)
        for (size_t b = 0; b < blocks * own.rank * kLanes; b += 64)
          __builtin_prefetch(own.low + low_places(own).at(block) + b);
    }
  }

  // The same of a tile whose rows are of several tasks, whose sums lie one row after another.
  EDGESEQ_INLINE bool apart(size_t row, size_t rows, size_t block, size_t blocks, const int32_t* sums) const {
    if (p.task[row + rows - 1] == p.task[row]) return false;
    for (size_t r = 0; r < rows; r++, sums += blocks * kLanes) {
      const Finish& own = *p.finish[p.task[row + r]];
      if (own.low) {
        of_row(own, row + r, block, blocks, sums, [&](size_t of, F (&made)[1]) EDGESEQ_LAMBDA { add_low(own, row + r, of, made); });
      } else {
        of_row(own, row + r, block, blocks, sums, [](size_t, F (&)[1]) EDGESEQ_LAMBDA {});
      }
    }
    return true;
  }

  // The same of a whole tile from registers, where all its rows are of one task.
  template <size_t R, size_t B>
  EDGESEQ_INLINE bool together(size_t row, size_t block, const I (&sums)[R][B]) const {
    const uint16_t task = p.task[row];
    const Finish& own = *p.finish[task];
    if (p.task[row + R - 1] != task) return false;
    if (own.low) {
      tile(own, row, block, sums, [&](size_t of, F (&made)[R]) EDGESEQ_LAMBDA { add_low(own, row, of, made); });
    } else {
      tile(own, row, block, sums, [](size_t, F (&)[R]) EDGESEQ_LAMBDA {});
    }
    return true;
  }

 private:
  // `add(block, made)` adds what a low-rank part gives to a block's numbers, if there is one; so in `tile`.
  template <class Add>
  EDGESEQ_INLINE void of_row(const Finish& own, size_t row, size_t block, size_t blocks, const int32_t* sums,
                             const Add& add) const {
    const F zero = all(0.0f), x_scale = all(p.x_scale[row]);
    float* y = p.y + row * p.y_stride + (block - p.first_block) * kLanes;
    const auto each = [&](const auto& put) EDGESEQ_LAMBDA {
      for (size_t b = 0; b < blocks; b++) {
        const size_t at = (block + b) * kLanes;
        const F sum = to_floats(load_sums(sums + b * kLanes));
        F made[1] = {fused(sum, x_scale * load(own.scale + at), load(own.bias + at))};
        add(block + b, made);
        put(y + b * kLanes, made[0]);
      }
    };
    switch (mode) {
      case Mode::store: return each([](float* out, F made) EDGESEQ_LAMBDA { store(out, made); });
      case Mode::relu: return each([=](float* out, F made) EDGESEQ_LAMBDA { store(out, larger(made, zero)); });
      case Mode::add: return each([](float* out, F made) EDGESEQ_LAMBDA { store(out, load(out) + made); });
    }
  }

  template <size_t R, size_t B, class Add>
  EDGESEQ_INLINE void tile(const Finish& own, size_t row, size_t block, const I (&sums)[R][B], const Add& add) const {
    const F zero = all(0.0f);
    float* y = p.y + row * p.y_stride + (block - p.first_block) * kLanes;
    const auto each = [&](const auto& put) EDGESEQ_LAMBDA {
      repeat<B>([&](auto b) EDGESEQ_LAMBDA {
        const F scale = load(own.scale + (block + b) * kLanes), bias = load(own.bias + (block + b) * kLanes);
        F made[R];
        repeat<R>([&](auto r) EDGESEQ_LAMBDA {
          made[r] = fused(to_floats(sums[r][b]), all(p.x_scale[row + r]) * scale, bias);
        });
        add(block + b, made);
        repeat<R>([&](auto r) EDGESEQ_LAMBDA { put(y + r * p.y_stride + b * kLanes, made[r]); });
      });
    };
    switch (mode) {
      case Mode::store: return each([](float* out, F made) EDGESEQ_LAMBDA { store(out, made); });
      case Mode::relu: return each([=](float* out, F made) EDGESEQ_LAMBDA { store(out, larger(made, zero)); });
      case Mode::add: return each([](float* out, F made) EDGESEQ_LAMBDA { store(out, load(out) + made); });
    }
  }

  EDGESEQ_INLINE void of_task(const Finish& own, size_t row, size_t count, size_t block,
                              const int32_t* sums, size_t stride) const {
    const F zero = all(0.0f);
    switch (mode) {
      case Mode::store:
        return rows(own, row, count, block, sums, stride, [](float* out, F made) EDGESEQ_LAMBDA { store(out, made); });
      case Mode::relu:
        return rows(own, row, count, block, sums, stride,
                    [=](float* out, F made) EDGESEQ_LAMBDA { store(out, larger(made, zero)); });
      case Mode::add:
        return rows(own, row, count, block, sums, stride,
                    [](float* out, F made) EDGESEQ_LAMBDA { store(out, load(out) + made); });
    }
  }

  template <class Put>
  EDGESEQ_INLINE void rows(const Finish& own, size_t row, size_t count, size_t block, const int32_t* sums,
                           size_t stride, const Put& put) const {
    const F scale = load(own.scale + block * kLanes), bias = load(own.bias + block * kLanes);
    float* y = p.y + row * p.y_stride + (block - p.first_block) * kLanes;
    const auto some = [&](auto many, size_t first) EDGESEQ_LAMBDA {
      constexpr size_t R = many;
      F made[R];
      repeat<R>([&](auto r) EDGESEQ_LAMBDA {
        made[r] = fused(to_floats(load_sums(sums + (first + r) * stride)), all(p.x_scale[row + first + r]) * scale, bias);
      });
      if (own.low) add_low(own, row + first, block, made);
      repeat<R>([&](auto r) EDGESEQ_LAMBDA { put(y + (first + r) * p.y_stride, made[r]); });
    };
    size_t r = 0;
    for (; r + 4 <= count; r += 4) some(std::integral_constant<size_t, 4>(), r);
    for (; r < count; r++) some(std::integral_constant<size_t, 1>(), r);
  }

  EDGESEQ_INLINE Places low_places(const Finish& own) const { return {own.rank / 4, p.matrix.places.blocks}; }

  // B u of R rows to a block's numbers: what they share of B is read once.
  template <size_t R>
  EDGESEQ_INLINE void add_low(const Finish& own, size_t row, size_t block, F (&made)[R]) const {
    const size_t part = own.part_of_block[block], stride = p.low->stride;
    const uint8_t* u = p.low->codes + row * stride + part * own.rank;
    const LowScale* of_u = p.low->scale + row * p.low->parts + part;
    const size_t step = low_places(own).step(block);
    const int8_t* w = own.low + low_places(own).at(block);
    const F low_scale = load(own.low_scale + block * kLanes);
    I more[R];
    repeat<R>([&](auto r) EDGESEQ_LAMBDA { more[r] = all(of_u[r * p.low->parts].start); });
    for (size_t i = 0; i < own.rank; i += 4, w += step) {
      const W column = weights(w);
      repeat<R>([&](auto r) EDGESEQ_LAMBDA { more[r] = dot_low(more[r], shared(u + r * stride + i), column); });
    }
    repeat<R>([&](auto r) EDGESEQ_LAMBDA {
      made[r] = fused(to_floats(more[r]), all(of_u[r * p.low->parts].scale) * low_scale, made[r]);
    });
  }
};

struct KeepSums {
  const Product& p;
  int32_t* out;

  EDGESEQ_INLINE void expect(size_t, size_t, size_t, size_t) const {}
  EDGESEQ_INLINE bool apart(size_t, size_t, size_t, size_t, const int32_t*) const { return false; }

  template <size_t R, size_t B>
  EDGESEQ_INLINE bool together(size_t, size_t, const I (&)[R][B]) const {
    return false;
  }

  EDGESEQ_INLINE void operator()(size_t row, size_t count, size_t block, const int32_t* sums,
                                 size_t stride) const {
    const size_t width = (p.last_block - p.first_block) * kLanes;
    for (size_t r = 0; r < count; r++)
      store(out + (row + r) * width + (block - p.first_block) * kLanes, load_sums(sums + r * stride));
  }
};

// In how many turns a sum of columns is made, so that few sums do not wait for each other.
constexpr size_t turns(size_t sums) {
  size_t made = 1;
  while (2 * made * sums <= kSumsInFlight) made *= 2;
  return made;
}

// Asks for weights that are read next, a line at a time while others are multiplied with more than two rows: with
// fewer, reading is all there is to wait for.
struct Ahead {
  const int8_t* at;
  size_t step;  // 0: there are none

  EDGESEQ_INLINE void operator()() {
    __builtin_prefetch(at, 0, 2);
    at += step;
  }
};

template <size_t R, size_t B, class Done>
EDGESEQ_INLINE void tile(const Product& p, size_t row, size_t block, const int32_t (&negatives)[R], Ahead& ahead,
                         const Done& done) {
  constexpr size_t S = turns(R * B);
  static_assert(B <= kAbreast || B % kAbreast == 0, "blocks of a tile lie abreast, or all that do are its");
  const Places& places = p.matrix.places;
  const size_t step = places.step(block), next = places.groups * kAbreast * 64, x_stride = p.x_stride;
  const int8_t* w = p.matrix.values + places.at(block);
  const uint8_t* x = p.x + row * x_stride;
  if constexpr (R > 1) done.expect(row, R, block, B);
  I sums[R][B][S];
  repeat<B>([&](auto b) EDGESEQ_LAMBDA {
    repeat<R>([&](auto r) EDGESEQ_LAMBDA {
      const I first = start(p.matrix.offset + (block + b) * kLanes, negatives[r]);
      repeat<S>([&](auto s) EDGESEQ_LAMBDA { sums[r][b][s] = s ? none() : first; });
    });
  });
  for (size_t g = 0; g < places.groups; g += S, w += step * S, x += 4 * S) {
    if constexpr (R > 2) ahead();
    repeat<S>([&](auto s) EDGESEQ_LAMBDA {
      W column[B];
      repeat<B>([&](auto b) EDGESEQ_LAMBDA {
        column[b] = weights(w + b / kAbreast * next + b % kAbreast * 64 + s * step);
        if constexpr (R > 1) keep(column[b]);
      });
      repeat<R>([&](auto r) EDGESEQ_LAMBDA {
        const X four = shared(x + r * x_stride + 4 * s);
        repeat<B>([&](auto b) EDGESEQ_LAMBDA { sums[r][b][s] = dot(sums[r][b][s], four, column[b]); });
      });
    });
  }
  I whole[R][B];
  repeat<R>([&](auto r) EDGESEQ_LAMBDA {
    repeat<B>([&](auto b) EDGESEQ_LAMBDA {
      I sum = sums[r][b][0];
      repeat<S - 1>([&](auto s) EDGESEQ_LAMBDA { sum = plus(sum, sums[r][b][s + 1]); });
      whole[r][b] = sum;
    });
  });
  if (done.together(row, block, whole)) return;
  // By way of memory, one loop for any number of rows and tasks.
  alignas(64) int32_t made[R * B * kLanes];
  repeat<R>([&](auto r) EDGESEQ_LAMBDA {
    repeat<B>([&](auto b) EDGESEQ_LAMBDA { store(made + (r * B + b) * kLanes, whole[r][b]); });
  });
  if (done.apart(row, R, block, B, made)) return;
  for (size_t b = 0; b < B; b++) done(row, R, block + b, made + b * kLanes, B * kLanes);
}

// Some rows of blocks [block, last).
template <size_t R, class Done>
__attribute__((noinline)) void strip(const Product& p, size_t row, size_t block, size_t last, Ahead ahead,
                                     const Done& done) {
  constexpr size_t wide = R <= kFewRows ? kWideBlocks : kTileBlocks;  // few rows need more sums in flight
  int32_t negatives[R];
  for (size_t r = 0; r < R; r++) negatives[r] = of_negatives(p.x + (row + r) * p.x_stride, p.matrix.places.groups * 4);
  // A tile of so many blocks comes next, if they lie abreast and are asked for.
  const auto made = [&](auto blocks) EDGESEQ_LAMBDA {
    constexpr size_t B = blocks;
    if (block + B > last || (B > kAbreast ? block % kAbreast : (block % kAbreast + B - 1) / kAbreast)) return false;
    tile<R, B>(p, row, block, negatives, ahead, done);
    block += B;
    return true;
  };
  while (block < last) {
    if (made(std::integral_constant<size_t, wide>())) continue;
    if constexpr (wide > 4)
      if (made(std::integral_constant<size_t, 4>())) continue;
    if constexpr (wide > 2)
      if (made(std::integral_constant<size_t, 2>())) continue;
    if constexpr (wide > 1) made(std::integral_constant<size_t, 1>());
  }
}

// Rows in strips, as even as they go: 8 rows are two strips of 4 rather than 6 and 2.  All strips have their turn
// with a panel of blocks, which stays in a core's cache meanwhile, and each asks for its share of what is read next:
// the next panel, after the last what the next product reads.
template <class Done>
void in_strips(const Product& p, const Done& done) {
  if (!p.rows) return;
  constexpr size_t panel_bytes = 128 << 10;
  const size_t groups = p.matrix.places.groups, block_bytes = groups * 64;
  const size_t strips = (p.rows + kTileRows - 1) / kTileRows;
  const size_t fewest = p.rows / strips, more = p.rows - fewest * strips;
  size_t panel = p.last_block - p.first_block;
  if (strips > 1 && panel * block_bytes > 2 * panel_bytes) {
    const size_t abreast = panel_bytes / (kAbreast * block_bytes);
    panel = kAbreast * (abreast ? abreast : 1);
  }
  for (size_t first = p.first_block, last; first < p.last_block; first = last) {
    last = first + panel < p.last_block ? first + panel : p.last_block;
    const size_t left = p.last_block - last, next = left < panel ? left : panel;
    const size_t lines = next ? next * groups : p.then_bytes / 64;
    const size_t most = (last - first) * groups / kTileBlocks;  // that a strip asks for
    const size_t share = (lines / strips < most ? lines / strips : most) * 64;
    Ahead ahead{p.matrix.values, lines ? 64u : 0u};
    if (lines) ahead.at = next ? p.matrix.values + last * block_bytes : p.then;
    for (size_t s = 0, row = 0, end; s < strips; s++, row = end, ahead.at += share) {
      end = row + fewest + (s < more);
      switch (end - row) {
        case 1: strip<1>(p, row, first, last, ahead, done); break;
#if !defined(EDGESEQ_PLAIN)
        case 2: strip<2>(p, row, first, last, ahead, done); break;
        case 3: strip<3>(p, row, first, last, ahead, done); break;
        case 4: strip<4>(p, row, first, last, ahead, done); break;
#endif
#if defined(__AVX512F__)
        case 5: strip<5>(p, row, first, last, ahead, done); break;
        case 6: strip<6>(p, row, first, last, ahead, done); break;
#endif
      }
    }
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

void project(const Product& p, Mode mode) { products(p, Finisher{p, mode}); }

void sums(const Product& p, int32_t* out) { products(p, KeepSums{p, out}); }

// --- attention ----------------------------------------------------------------------------------------

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

EDGESEQ_INLINE F scale_of(const Attention& a) { return all(1.0f / std::sqrt(static_cast<float>(a.width))); }

// A head, and the keys and values it reads.  Counted, as CPUs divide slowly.
struct Head {
  size_t at = 0, group = 0, of_group = 0;

  EDGESEQ_INLINE void next(size_t share) {
    at++;
    if (++of_group == share) of_group = 0, group++;
  }
};

// One query.  Keys are read as they lie, which is what their memory is fastest at.
namespace one {

// Scores of keys [at, at + 16) for a head; those beyond the last are its own again.
EDGESEQ_INLINE F score(const Attention& a, const float* query, const float* keys, size_t at) {
  F sums[kLanes];
  repeat<kLanes>([&](auto k) EDGESEQ_LAMBDA { sums[k] = all(0.0f); });
  for (size_t c = 0; c < a.width; c += kLanes) {
    const F own = load(query + c);
    repeat<kLanes>([&](auto k) EDGESEQ_LAMBDA {
      const size_t row = at + k < a.count ? at + k : a.count - 1;
      sums[k] = fused(own, load(keys + row * a.stride + c), sums[k]);
    });
  }
  return totals(sums);
}

// Sixteen dimensions of the query's heads.
struct Block {
  Head head;
  size_t within = 0;

  EDGESEQ_INLINE void next(size_t width, size_t share) {
    within += kLanes;
    if (within == width) within = 0, head.next(share);
  }
};

// B times 16 dimensions of the values' mean, from a block on.
template <size_t B>
EDGESEQ_INLINE void mix(const Attention& a, size_t share, const float* scores, size_t filled, const float* factor,
                        Block* at, float* out) {
  const float *weights[B], *values[B];
  float factors[B];
  F sums[B];
  repeat<B>([&](auto b) EDGESEQ_LAMBDA {
    weights[b] = scores + at->head.at * filled;
    values[b] = a.values + at->head.group * a.head_stride + at->within;
    factors[b] = factor[at->head.at];
    sums[b] = all(0.0f);
    at->next(a.width, share);
  });
  for (size_t i = 0; i < a.count; i++)
    repeat<B>([&](auto b) EDGESEQ_LAMBDA {
      sums[b] = fused(all(weights[b][i]), load(values[b] + i * a.stride), sums[b]);
    });
  repeat<B>([&](auto b) EDGESEQ_LAMBDA { store(out + b * kLanes, sums[b] * all(factors[b])); });
}

void attend(const Attention& a) {
  const size_t filled = edgeseq::padded(a.count, kLanes), share = a.heads / a.kv_heads, width = a.heads * a.width;
  const F scale = scale_of(a);
  float* factor = a.scratch + a.heads * filled;
  for (Head head; head.at < a.heads; head.next(share)) {
    float* scores = a.scratch + head.at * filled;
    const float *query = a.query + head.at * a.width, *keys = a.keys + head.group * a.head_stride;
    for (size_t i = 0; i < filled; i += kLanes) store(scores + i, score(a, query, keys, i) * scale);
    factor[head.at] = 1.0f / weigh(scores, a.count, filled, a.added);
  }
  Block block;
  size_t at = 0;
  for (; at + kMixBlocks * kLanes <= width; at += kMixBlocks * kLanes)
    mix<kMixBlocks>(a, share, a.scratch, filled, factor, &block, a.out + at);
  for (; at < width; at += kLanes) mix<1>(a, share, a.scratch, filled, factor, &block, a.out + at);
}

}  // namespace one

// Several queries, sixteen at a time, each in its lane: a softmax takes as many steps for all of them as for one.
namespace several {

// Scores of K keys for queries [width][16]; even and odd dimensions are summed apart.
template <size_t K>
EDGESEQ_INLINE void score(const Attention& a, const float* queries, const float* keys, F scale, float* out) {
  F even[K], odd[K];
  repeat<K>([&](auto k) EDGESEQ_LAMBDA { even[k] = odd[k] = all(0.0f); });
  for (size_t c = 0; c < a.width; c += 2, queries += 2 * kLanes) {
    const F first = load(queries), second = load(queries + kLanes);
    repeat<K>([&](auto k) EDGESEQ_LAMBDA {
      const float* own = keys + k * a.stride + c;
      even[k] = fused(all(own[0]), first, even[k]);
      odd[k] = fused(all(own[1]), second, odd[k]);
    });
  }
  repeat<K>([&](auto k) EDGESEQ_LAMBDA { store(out + k * kLanes, (even[k] + odd[k]) * scale); });
}

// Turns scores [count][16] into weights; what each query's have to be multiplied with goes into `factor`.
EDGESEQ_INLINE void weigh(const Attention& a, float* scores, float* factor) {
  if (a.added)
    for (size_t k = 0; k < a.count; k++) store(scores + k * kLanes, load(scores + k * kLanes) + all(a.added[k]));
  F most = load(scores), sum = all(0.0f);
  for (size_t k = 1; k < a.count; k++) most = larger(most, load(scores + k * kLanes));
  for (size_t k = 0; k < a.count; k++) {
    const F weight = exponential(load(scores + k * kLanes) - most);
    store(scores + k * kLanes, weight);
    sum = sum + weight;
  }
  store(factor, sum);
  for (size_t i = 0; i < kLanes; i++) factor[i] = 1.0f / factor[i];
}

// B times 16 dimensions of the values' mean, for Q queries.
template <size_t Q, size_t B>
EDGESEQ_INLINE void mix(const Attention& a, const float* weights, const float* factor, const float* values, float* out) {
  F sums[Q][B];
  repeat<Q>([&](auto q) EDGESEQ_LAMBDA {
    repeat<B>([&](auto b) EDGESEQ_LAMBDA { sums[q][b] = all(0.0f); });
  });
  for (size_t k = 0; k < a.count; k++, values += a.stride, weights += kLanes) {
    F own[B];
    repeat<B>([&](auto b) EDGESEQ_LAMBDA { own[b] = load(values + b * kLanes); });
    repeat<Q>([&](auto q) EDGESEQ_LAMBDA {
      const F weight = all(weights[q]);
      repeat<B>([&](auto b) EDGESEQ_LAMBDA { sums[q][b] = fused(weight, own[b], sums[q][b]); });
    });
  }
  repeat<Q>([&](auto q) EDGESEQ_LAMBDA {
    repeat<B>([&](auto b) EDGESEQ_LAMBDA {
      store(out + q * a.out_stride + b * kLanes, sums[q][b] * all(factor[q]));
    });
  });
}

// The same for all dimensions of a head.
template <size_t Q>
EDGESEQ_INLINE void mix(const Attention& a, const float* weights, const float* factor, const float* values, float* out) {
  size_t c = 0;
  for (; c + 2 * kLanes <= a.width; c += 2 * kLanes) mix<Q, 2>(a, weights, factor, values + c, out + c);
  for (; c < a.width; c += kLanes) mix<Q, 1>(a, weights, factor, values + c, out + c);
}

void attend(const Attention& a) {
  const F scale = scale_of(a);
  const size_t share = a.heads / a.kv_heads;
  float *factor = a.scratch, *queries = factor + kLanes, *scores = queries + kLanes * a.width;
  for (Head head; head.at < a.heads; head.next(share)) {
    const float *keys = a.keys + head.group * a.head_stride, *values = a.values + head.group * a.head_stride;
    for (size_t first = 0; first < a.queries; first += kLanes) {
      const size_t rows = a.queries - first < kLanes ? a.queries - first : kLanes;
      const float* query = a.query + first * a.query_stride + head.at * a.width;
      for (size_t c = 0; c < a.width; c += kLanes) transpose(query + c, a.query_stride, rows, queries + c * kLanes);
      size_t k = 0;
      for (; k + kKeys <= a.count; k += kKeys) score<kKeys>(a, queries, keys + k * a.stride, scale, scores + k * kLanes);
      for (; k < a.count; k++) score<1>(a, queries, keys + k * a.stride, scale, scores + k * kLanes);
      weigh(a, scores, factor);
      float* out = a.out + first * a.out_stride + head.at * a.width;
      size_t q = 0;
      for (; q + kQueries <= rows; q += kQueries)
        mix<kQueries>(a, scores + q, factor + q, values, out + q * a.out_stride);
      for (; q < rows; q++) mix<1>(a, scores + q, factor + q, values, out + q * a.out_stride);
    }
  }
}

}  // namespace several

void attend(const Attention& a) { a.queries == 1 ? one::attend(a) : several::attend(a); }

void point(const Attention& a) {
  const size_t filled = edgeseq::padded(a.count, kLanes);
  const F scale = scale_of(a);
  for (size_t i = 0; i < filled; i += kLanes) store(a.out + i, one::score(a, a.query, a.keys, i) * scale);
  const F factor = all(1.0f / weigh(a.out, a.count, filled, a.added));
  for (size_t i = 0; i < filled; i += kLanes) store(a.out + i, load(a.out + i) * factor);
}

// `pairs` is a constant for the usual widths of a head, so that compilers turn the loops into vectors.
EDGESEQ_INLINE void turn_pairs(float* heads, size_t count, size_t pairs, const float* __restrict cosine,
                               const float* __restrict sine) {
  for (size_t head = 0; head < count; head++, heads += 4 * pairs) {
    float *__restrict a = heads, *__restrict b = heads + pairs;
    for (size_t i = 0; i < pairs; i++) {
      const float was = a[i];
      a[i] = was * cosine[i] - b[i] * sine[i];
      b[i] = was * sine[i] + b[i] * cosine[i];
    }
  }
}

void turn(float* heads, size_t count, size_t width, const float* cosine, const float* sine) {
  switch (width) {
    case 32: return turn_pairs(heads, count, 8, cosine, sine);
    case 48: return turn_pairs(heads, count, 12, cosine, sine);
    case 64: return turn_pairs(heads, count, 16, cosine, sine);
    default: return turn_pairs(heads, count, width / 4, cosine, sine);
  }
}

// --- the next token -----------------------------------------------------------------------------------

// The largest of the 64 numbers from x on, in each lane.
EDGESEQ_INLINE F largest_of_64(const float* x) {
  return larger(larger(load(x), load(x + kLanes)), larger(load(x + 2 * kLanes), load(x + 3 * kLanes)));
}

Best best(const float* x, size_t n) {
  F most = all(-INFINITY);
  size_t i = 0;
  for (; i + 64 <= n; i += 64) most = larger(most, largest_of_64(x + i));
  float top = largest(most);
  for (; i < n; i++) top = x[i] > top ? x[i] : top;
  size_t at = 0;
  while (at + 64 <= n && largest(largest_of_64(x + at)) != top) at += 64;
  while (at + 1 < n && x[at] != top) at++;
  return {top, static_cast<uint32_t>(at)};
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
    static constexpr edgeseq::Kernels table = {#name, kZero,  quantize, quantize_few, normed,     \
                                               project, sums, attend,   point,        turn,       \
                                               best,    log_total};                               \
    return &table;                                                                                \
  }
