// Numbers of 16 bits as floats, without a branch, so that compilers turn the loop into what the CPU has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edgeseq {

// `count` fp16 numbers, which need not be aligned; false where one of them is not finite.  Static, as each file has
// flags of its own.
static inline bool widen_plainly(const char* from, size_t count, float* out) {
  constexpr uint32_t top = 31u << 23;            // the exponent of what is not finite, moved to its place
  constexpr uint32_t shift = (127u - 15u) << 23;  // between the two biases of exponents
  constexpr float least = 1.0f / (1 << 14);       // the smallest number that is not subnormal
  uint32_t bad = 0;
  for (size_t i = 0; i < count; i++) {
    uint16_t half;
    std::memcpy(&half, from + i * sizeof half, sizeof half);
    const uint32_t sign = (half & 0x8000u) << 16, rest = (half & 0x7fffu) << 13, exponent = rest & (31u << 23);
    // A subnormal one gets the exponent of `least`, whose leading one is then taken away again.
    const uint32_t usual = rest + shift, raised = usual + (1u << 23);
    float small;
    std::memcpy(&small, &raised, sizeof small);
    small -= least;
    uint32_t subnormal;
    std::memcpy(&subnormal, &small, sizeof subnormal);
    const uint32_t bits = sign | (exponent ? usual : subnormal);
    std::memcpy(out + i, &bits, sizeof bits);
    bad |= exponent == top;
  }
  return !bad;
}

}  // namespace edgeseq
