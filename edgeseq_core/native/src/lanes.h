// Sixteen numbers at a time, on whatever CPU this file is compiled for.
//
// `F` holds sixteen floats, `I` sixteen sums of products of bytes, `W` 64 weights (4 for each sum) and `X`
// 4 activations that all sums share.  Every set of instructions adds in the same order and, where it has a
// fused multiply-add, uses it in the same places, so floats have the same bits on all that have one.  Sums of
// bytes are exact everywhere.
//
// All of it is in an unnamed namespace: what is compiled with AVX-512 must never be linked into a function
// that an older CPU runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#define EDGESEQ_INLINE inline __attribute__((always_inline))
#define EDGESEQ_LAMBDA __attribute__((always_inline))

namespace {

// Calls f with 0, 1, ... N - 1, each known to the compiler: only so do arrays of sums become registers.
template <size_t N, class Do>
EDGESEQ_INLINE void repeat(const Do& f) {
  if constexpr (N > 0) {
    repeat<N - 1>(f);
    f(std::integral_constant<size_t, N - 1>());
  }
}

#if defined(__AVX512F__)

// Codes of activations are unsigned (value + 128), as `vpdpbusd` wants them; a matrix's `offset` takes the
// 128 out again.
constexpr int kZero = 128;

struct F {
  __m512 v;
};
EDGESEQ_INLINE F load(const float* p) { return {_mm512_loadu_ps(p)}; }
EDGESEQ_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
EDGESEQ_INLINE F all(float x) { return {_mm512_set1_ps(x)}; }
EDGESEQ_INLINE F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
EDGESEQ_INLINE F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
EDGESEQ_INLINE F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
EDGESEQ_INLINE F fused(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
EDGESEQ_INLINE F larger(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
EDGESEQ_INLINE F magnitude(F a) { return {_mm512_abs_ps(a.v)}; }
EDGESEQ_INLINE F rounded(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT)}; }
EDGESEQ_INLINE F power_of_two(F n) {  // for whole n in [-126, 127]
  const __m512i bits = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 23))};
}
EDGESEQ_INLINE void store_codes(uint8_t* p, F a) {
  const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(kZero));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(whole));
}

using I = __m512i;  // no struct: GCC keeps arrays of those in memory
using W = __m512i;
using X = __m512i;
EDGESEQ_INLINE I none() { return _mm512_setzero_si512(); }
EDGESEQ_INLINE I start(const int32_t* offset, int32_t) { return _mm512_loadu_si512(offset); }
EDGESEQ_INLINE W weights(const int8_t* p) { return _mm512_load_si512(p); }
// Keeps weights that several rows want in a register: compilers read memory again for each row.
EDGESEQ_INLINE void keep(W& w) { asm("" : "+v"(w)); }
EDGESEQ_INLINE X shared(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
EDGESEQ_INLINE I dot(I sum, X x, W w) { return _mm512_dpbusd_epi32(sum, x, w); }
// Of signed x and of w + 128, which is the unsigned one.
EDGESEQ_INLINE I dot_low(I sum, X x, W w) { return _mm512_dpbusd_epi32(sum, w, x); }
EDGESEQ_INLINE I all(int32_t x) { return _mm512_set1_epi32(x); }
EDGESEQ_INLINE F load_first(const float* p, size_t n) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
}
// Stores the first n as signed bytes, at most sixteen; returns their sum.  Those after them are zero.
EDGESEQ_INLINE int32_t store_signed(uint8_t* p, F a, size_t n) {
  const __m128i codes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)), half = _mm_set1_epi8(-128);
  _mm_mask_storeu_epi8(p, static_cast<__mmask16>((1u << n) - 1), codes);
  const __m128i sums = _mm_sad_epu8(_mm_xor_si128(codes, half), _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 2) - 16 * 128;
}
EDGESEQ_INLINE I plus(I a, I b) { return _mm512_add_epi32(a, b); }
EDGESEQ_INLINE F to_floats(I a) { return {_mm512_cvtepi32_ps(a)}; }
EDGESEQ_INLINE void store(int32_t* p, I a) { _mm512_storeu_si512(p, a); }
EDGESEQ_INLINE I load_sums(const int32_t* p) { return _mm512_loadu_si512(p); }

// Sums and largest of the sixteen fold them in halves, in the same order everywhere.
EDGESEQ_INLINE float total(F a) { return _mm512_reduce_add_ps(a.v); }
EDGESEQ_INLINE float largest(F a) { return _mm512_reduce_max_ps(a.v); }

// The same of sixteen: what folds a lane onto another does so for two of them at once.
EDGESEQ_INLINE F totals(const F (&all)[16]) {
  F eight[4][2], four[4], two[2];
  repeat<4>([&](auto i) EDGESEQ_LAMBDA {
    repeat<2>([&](auto h) EDGESEQ_LAMBDA {
      const __m512 a = all[8 * h + i].v, b = all[8 * h + i + 4].v;
      eight[i][h].v = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    });
    const __m512 a = eight[i][0].v, b = eight[i][1].v;
    four[i].v = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
  });
  repeat<2>([&](auto i) EDGESEQ_LAMBDA {
    const __m512d a = _mm512_castps_pd(four[2 * i].v), b = _mm512_castps_pd(four[2 * i + 1].v);
    two[i].v = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  });
  const __m512 a = two[0].v, b = two[1].v;
  return {_mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD))};
}

// Sixteen columns of some rows, at most sixteen, turned over: to[column][row].
EDGESEQ_INLINE void transpose(const float* from, size_t stride, size_t rows, float* to) {
  __m512 a[16], b[16];
  repeat<16>([&](auto r) EDGESEQ_LAMBDA { a[r] = r < rows ? _mm512_loadu_ps(from + r * stride) : _mm512_setzero_ps(); });
  repeat<8>([&](auto i) EDGESEQ_LAMBDA {  // pairs of rows
    b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  });
  repeat<4>([&](auto i) EDGESEQ_LAMBDA {  // fours of rows, a column a quarter
    repeat<2>([&](auto h) EDGESEQ_LAMBDA {
      const __m512d x = _mm512_castps_pd(b[4 * i + h]), y = _mm512_castps_pd(b[4 * i + h + 2]);
      a[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      a[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    });
  });
  repeat<4>([&](auto c) EDGESEQ_LAMBDA {
    const __m512 even_low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x88), odd_low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xDD),
                 even_high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x88),
                 odd_high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xDD);
    _mm512_storeu_ps(to + 16 * c, _mm512_shuffle_f32x4(even_low, even_high, 0x88));
    _mm512_storeu_ps(to + 16 * (c + 4), _mm512_shuffle_f32x4(odd_low, odd_high, 0x88));
    _mm512_storeu_ps(to + 16 * (c + 8), _mm512_shuffle_f32x4(even_low, even_high, 0xDD));
    _mm512_storeu_ps(to + 16 * (c + 12), _mm512_shuffle_f32x4(odd_low, odd_high, 0xDD));
  });
}

constexpr size_t kTileRows = 6, kTileBlocks = 4, kFewRows = 2, kWideBlocks = 8;  // 32 registers
constexpr size_t kQueries = 4, kKeys = 8, kMixBlocks = 8, kSumsInFlight = 8;

#elif defined(__AVX2__)

struct F {
  __m256 a, b;
};
EDGESEQ_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
EDGESEQ_INLINE void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
EDGESEQ_INLINE F all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
EDGESEQ_INLINE F operator+(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
EDGESEQ_INLINE F operator-(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
EDGESEQ_INLINE F operator*(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
EDGESEQ_INLINE F fused(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
EDGESEQ_INLINE F larger(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
EDGESEQ_INLINE F magnitude(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
EDGESEQ_INLINE F rounded(F x) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, nearest), _mm256_round_ps(x.b, nearest)};
}
EDGESEQ_INLINE __m256 power_of_two(__m256 n) {
  const __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
EDGESEQ_INLINE F power_of_two(F n) { return {power_of_two(n.a), power_of_two(n.b)}; }

struct I {
  __m256i a, b;
};
struct W {
  __m256i a, b;
};
EDGESEQ_INLINE I none() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
EDGESEQ_INLINE W weights(const int8_t* p) {
  const auto* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(at), _mm256_load_si256(at + 1)};
}
EDGESEQ_INLINE __m256i four_bytes(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}
EDGESEQ_INLINE I plus(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
EDGESEQ_INLINE F to_floats(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
EDGESEQ_INLINE void store(int32_t* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}
EDGESEQ_INLINE I load_sums(const int32_t* p) {
  const auto* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}

#if defined(__AVXVNNI__)
constexpr int kZero = 128;
using X = __m256i;
EDGESEQ_INLINE X shared(const uint8_t* p) { return four_bytes(p); }
EDGESEQ_INLINE I start(const int32_t* offset, int32_t) {
  const auto* at = reinterpret_cast<const __m256i*>(offset);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
EDGESEQ_INLINE I dot(I sum, X x, W w) {
  return {_mm256_dpbusd_avx_epi32(sum.a, x, w.a), _mm256_dpbusd_avx_epi32(sum.b, x, w.b)};
}
EDGESEQ_INLINE I dot_low(I sum, X x, W w) {
  return {_mm256_dpbusd_avx_epi32(sum.a, w.a, x), _mm256_dpbusd_avx_epi32(sum.b, w.b, x)};
}
EDGESEQ_INLINE I all(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
#else
// `vpmaddubsw` adds two products of unsigned and signed bytes in 16 bits.  Of a negative x the weights' bits are
// turned over, w ^ -1 = -w - 1, so that x w = |x| (w ^ -1) + |x|: what is missing is the same for all weights, and
// sums begin at it (`start`).  |x| <= 127 and -128 <= w <= 127, so two products stay under 2^15: exact.
constexpr int kZero = 0;
struct X {
  __m256i magnitude, negative;
};
EDGESEQ_INLINE X shared(const uint8_t* p) {
  const __m256i four = four_bytes(p);
  return {_mm256_abs_epi8(four), _mm256_cmpgt_epi8(_mm256_setzero_si256(), four)};
}
EDGESEQ_INLINE int32_t of_negatives(const uint8_t* codes, size_t n) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i sums = zero;
  for (size_t at = 0; at < n; at += 32) {
    const __m256i own = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + at));
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(_mm256_abs_epi8(_mm256_min_epi8(own, zero)), zero));
  }
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 2);
}
EDGESEQ_INLINE I all(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
EDGESEQ_INLINE I start(const int32_t*, int32_t negatives) { return all(negatives); }
EDGESEQ_INLINE __m256i pairs_added(__m256i sum, __m256i magnitude, __m256i w) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, w), _mm256_set1_epi16(1)));
}
EDGESEQ_INLINE __m256i dot(__m256i sum, X x, __m256i w) {
  return pairs_added(sum, x.magnitude, _mm256_xor_si256(w, x.negative));
}
// Sums of a few begin at nothing: the weights are negated in full.
EDGESEQ_INLINE __m256i dot_low(__m256i sum, X x, __m256i w) {
  return pairs_added(sum, x.magnitude, _mm256_sub_epi8(_mm256_xor_si256(w, x.negative), x.negative));
}
EDGESEQ_INLINE I dot_low(I sum, X x, W w) { return {dot_low(sum.a, x, w.a), dot_low(sum.b, x, w.b)}; }
EDGESEQ_INLINE I dot(I sum, X x, W w) { return {dot(sum.a, x, w.a), dot(sum.b, x, w.b)}; }
#endif

EDGESEQ_INLINE void store_codes(uint8_t* p, F x) {
  const __m256i zero = _mm256_set1_epi32(kZero);
  const __m256i low = _mm256_add_epi32(_mm256_cvtps_epi32(x.a), zero);
  const __m256i high = _mm256_add_epi32(_mm256_cvtps_epi32(x.b), zero);
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
  const __m128i first = _mm256_castsi256_si128(words), last = _mm256_extracti128_si256(words, 1);
  const __m128i bytes = kZero ? _mm_packus_epi16(first, last) : _mm_packs_epi16(first, last);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

EDGESEQ_INLINE float total(F x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
EDGESEQ_INLINE float largest(F x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#if defined(__AVXVNNI__)
constexpr size_t kTileRows = 4, kTileBlocks = 1;  // 16 registers
#else
constexpr size_t kTileRows = 2, kTileBlocks = 2;  // a magnitude serves two blocks
#endif
constexpr size_t kFewRows = 1, kWideBlocks = 4, kQueries = 2, kKeys = 2, kMixBlocks = 4, kSumsInFlight = 4;

#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)

constexpr int kZero = 0;

struct F {
  float32x4_t v[4];
};
#define EDGESEQ_EACH(expression) \
  F out;                         \
  for (int i = 0; i < 4; i++) out.v[i] = (expression); \
  return out
EDGESEQ_INLINE F load(const float* p) { EDGESEQ_EACH(vld1q_f32(p + 4 * i)); }
EDGESEQ_INLINE void store(float* p, F a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
EDGESEQ_INLINE F all(float x) { EDGESEQ_EACH(vdupq_n_f32(x)); }
EDGESEQ_INLINE F operator+(F a, F b) { EDGESEQ_EACH(vaddq_f32(a.v[i], b.v[i])); }
EDGESEQ_INLINE F operator-(F a, F b) { EDGESEQ_EACH(vsubq_f32(a.v[i], b.v[i])); }
EDGESEQ_INLINE F operator*(F a, F b) { EDGESEQ_EACH(vmulq_f32(a.v[i], b.v[i])); }
EDGESEQ_INLINE F fused(F a, F b, F c) { EDGESEQ_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
EDGESEQ_INLINE F larger(F a, F b) { EDGESEQ_EACH(vmaxq_f32(a.v[i], b.v[i])); }
EDGESEQ_INLINE F magnitude(F a) { EDGESEQ_EACH(vabsq_f32(a.v[i])); }
EDGESEQ_INLINE F rounded(F a) { EDGESEQ_EACH(vrndnq_f32(a.v[i])); }
EDGESEQ_INLINE F power_of_two(F n) {
  EDGESEQ_EACH(vreinterpretq_f32_s32(
      vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23)));
}
#undef EDGESEQ_EACH
EDGESEQ_INLINE void store_codes(uint8_t* p, F a) {
  int16x4_t words[4];
  for (int i = 0; i < 4; i++) words[i] = vqmovn_s32(vcvtnq_s32_f32(a.v[i]));
  const int8x8_t low = vqmovn_s16(vcombine_s16(words[0], words[1]));
  const int8x8_t high = vqmovn_s16(vcombine_s16(words[2], words[3]));
  vst1q_s8(reinterpret_cast<int8_t*>(p), vcombine_s8(low, high));
}

struct I {
  int32x4_t v[4];
};
struct W {
  int8x16_t v[4];
};
using X = int8x16_t;
EDGESEQ_INLINE I none() {
  const int32x4_t zero = vdupq_n_s32(0);
  return {{zero, zero, zero, zero}};
}
EDGESEQ_INLINE I start(const int32_t*, int32_t) { return none(); }
EDGESEQ_INLINE W weights(const int8_t* p) {
  return {{vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)}};
}
EDGESEQ_INLINE X shared(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
EDGESEQ_INLINE I dot(I sum, X x, W w) {
  for (int i = 0; i < 4; i++) sum.v[i] = vdotq_s32(sum.v[i], w.v[i], x);
  return sum;
}
EDGESEQ_INLINE I plus(I a, I b) {
  for (int i = 0; i < 4; i++) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
  return a;
}
EDGESEQ_INLINE F to_floats(I a) {
  F out;
  for (int i = 0; i < 4; i++) out.v[i] = vcvtq_f32_s32(a.v[i]);
  return out;
}
EDGESEQ_INLINE void store(int32_t* p, I a) {
  for (int i = 0; i < 4; i++) vst1q_s32(p + 4 * i, a.v[i]);
}
EDGESEQ_INLINE I load_sums(const int32_t* p) {
  return {{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}};
}

EDGESEQ_INLINE float total(F a) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
EDGESEQ_INLINE float largest(F a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}

constexpr size_t kTileRows = 4, kTileBlocks = 1, kFewRows = 2, kWideBlocks = 4, kQueries = 2, kKeys = 2;  // 32 registers
constexpr size_t kMixBlocks = 4, kSumsInFlight = 4;

#else  // plain C++, in loops of fixed length that compilers turn into what the CPU has

constexpr int kZero = 0;

struct F {
  float v[16];
};
#define EDGESEQ_EACH(expression) \
  F out;                         \
  for (int i = 0; i < 16; i++) out.v[i] = (expression); \
  return out
EDGESEQ_INLINE F load(const float* p) { EDGESEQ_EACH(p[i]); }
EDGESEQ_INLINE void store(float* p, F a) {
  for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
EDGESEQ_INLINE F all(float x) { EDGESEQ_EACH(x); }
EDGESEQ_INLINE F operator+(F a, F b) { EDGESEQ_EACH(a.v[i] + b.v[i]); }
EDGESEQ_INLINE F operator-(F a, F b) { EDGESEQ_EACH(a.v[i] - b.v[i]); }
EDGESEQ_INLINE F operator*(F a, F b) { EDGESEQ_EACH(a.v[i] * b.v[i]); }
EDGESEQ_INLINE F fused(F a, F b, F c) { EDGESEQ_EACH(a.v[i] * b.v[i] + c.v[i]); }
EDGESEQ_INLINE F larger(F a, F b) { EDGESEQ_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
EDGESEQ_INLINE F magnitude(F a) { EDGESEQ_EACH(a.v[i] < 0 ? -a.v[i] : a.v[i]); }
// Adding 1.5 * 2^23 leaves no bits for a fraction: right for |a| < 2^22.
EDGESEQ_INLINE F rounded(F a) { EDGESEQ_EACH((a.v[i] + 12582912.0f) - 12582912.0f); }
EDGESEQ_INLINE F power_of_two(F n) {
  F out;
  for (int i = 0; i < 16; i++) {
    const int32_t bits = (static_cast<int32_t>(n.v[i]) + 127) << 23;
    std::memcpy(&out.v[i], &bits, 4);
  }
  return out;
}
#undef EDGESEQ_EACH
EDGESEQ_INLINE void store_codes(uint8_t* p, F a) {
  const F whole = rounded(a);
  for (int i = 0; i < 16; i++) p[i] = static_cast<uint8_t>(static_cast<int8_t>(whole.v[i]));
}

struct I {
  int32_t v[16];
};
struct W {
  int16_t v[64];
};
struct X {
  int16_t v[4];
};
EDGESEQ_INLINE I none() { return {}; }
EDGESEQ_INLINE I start(const int32_t*, int32_t) { return none(); }
EDGESEQ_INLINE W weights(const int8_t* p) {
  W out;
  for (int i = 0; i < 64; i++) out.v[i] = p[i];
  return out;
}
EDGESEQ_INLINE X shared(const uint8_t* p) {
  X out;
  for (int i = 0; i < 4; i++) out.v[i] = static_cast<int8_t>(p[i]);
  return out;
}
EDGESEQ_INLINE I dot(I sum, X x, const W& w) {
  for (int i = 0; i < 16; i++) {
    const int16_t* four = w.v + 4 * i;
    sum.v[i] += four[0] * x.v[0] + four[1] * x.v[1] + four[2] * x.v[2] + four[3] * x.v[3];
  }
  return sum;
}
EDGESEQ_INLINE I plus(I a, I b) {
  for (int i = 0; i < 16; i++) a.v[i] += b.v[i];
  return a;
}
EDGESEQ_INLINE F to_floats(I a) {
  F out;
  for (int i = 0; i < 16; i++) out.v[i] = static_cast<float>(a.v[i]);
  return out;
}
EDGESEQ_INLINE void store(int32_t* p, I a) {
  for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
EDGESEQ_INLINE I load_sums(const int32_t* p) {
  I out;
  for (int i = 0; i < 16; i++) out.v[i] = p[i];
  return out;
}

EDGESEQ_INLINE float total(F a) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
  return a.v[0];
}
EDGESEQ_INLINE float largest(F a) {
  float top = a.v[0];
  for (int i = 1; i < 16; i++) top = a.v[i] > top ? a.v[i] : top;
  return top;
}

constexpr size_t kTileRows = 1, kTileBlocks = 1, kFewRows = 1, kWideBlocks = 1;
constexpr size_t kQueries = 1, kKeys = 1, kMixBlocks = 1, kSumsInFlight = 1;

#endif

#if !defined(__AVX512F__)
EDGESEQ_INLINE F totals(const F (&all)[16]) {
  float each[16];
  repeat<16>([&](auto i) EDGESEQ_LAMBDA { each[i] = total(all[i]); });
  return load(each);
}

EDGESEQ_INLINE F load_first(const float* p, size_t n) {
  float first[16] = {};
  for (size_t i = 0; i < n; i++) first[i] = p[i];
  return load(first);
}
EDGESEQ_INLINE int32_t store_signed(uint8_t* p, F a, size_t n) {
  float whole[16];
  store(whole, rounded(a));
  int32_t sum = 0;
  for (size_t i = 0; i < n; i++) {
    const auto code = static_cast<int8_t>(whole[i]);
    p[i] = static_cast<uint8_t>(code);
    sum += code;
  }
  return sum;
}

EDGESEQ_INLINE void transpose(const float* from, size_t stride, size_t rows, float* to) {
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < 16; c++) to[16 * c + r] = from[r * stride + c];
}
#endif

#if !defined(__AVX512F__) && !defined(__AVX2__)  // where codes are signed anyway, and sums begin at nothing
EDGESEQ_INLINE I dot_low(I sum, X x, const W& w) { return dot(sum, x, w); }
EDGESEQ_INLINE I all(int32_t) { return none(); }
#endif

#if !defined(__AVX512F__)
template <class Any>
EDGESEQ_INLINE void keep(Any&) {}
#endif

#if !defined(__AVX2__) || defined(__AVX512F__) || defined(__AVXVNNI__)  // where a code's sign is no matter
EDGESEQ_INLINE int32_t of_negatives(const uint8_t*, size_t) { return 0; }
#endif

// e^x for x <= 0, to 2 units in the last place; what is under e^-87 counts as that much.
// Source: Cephes' expf: x = n ln 2 + r, and a polynomial in r.
EDGESEQ_INLINE F exponential(F x) {
  x = larger(x, all(-87.0f));
  const F n = rounded(x * all(1.44269504088896341f));
  const F r = fused(n, all(2.12194440e-4f), fused(n, all(-0.693359375f), x));
  F p = all(1.9875691500e-4f);
  p = fused(p, r, all(1.3981999507e-3f));
  p = fused(p, r, all(8.3334519073e-3f));
  p = fused(p, r, all(4.1665795894e-2f));
  p = fused(p, r, all(1.6666665459e-1f));
  p = fused(p, r, all(5.0000001201e-1f));
  p = fused(p, r * r, r + all(1.0f));
  return p * power_of_two(n);
}

}  // namespace
