// Named arrays as they come from a file, and reading them with every size and value checked.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace edgeseq {

// The bytes do not fit the base, or make no sense.
struct Misfit : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Array {
  enum class Type { int8, float16, float32 };
  Type type;
  std::vector<size_t> shape;
  const char* data;
  bool taken = false;
};

struct QuantizedRows {
  const int8_t* values;        // [rows, columns]
  std::vector<float> scale;  // [rows]
};

// Each array is asked for by name and shape; at the end, none may be left over.
class Reader {
 public:
  explicit Reader(std::unordered_map<std::string, Array> arrays) : arrays_(std::move(arrays)) {}

  QuantizedRows matrix(const std::string& name, size_t rows, size_t columns) {
    const Array& found = take(name, Array::Type::int8, {rows, columns});
    const auto* values = reinterpret_cast<const int8_t*>(found.data);
    uint8_t bad = 0;
    for (size_t i = 0; i < rows * columns; i++) bad |= values[i] == -128;
    if (bad) throw Misfit(name + " holds -128, which no symmetric int8 has");
    return {values, floats(name + ".scale", rows)};
  }

  std::vector<float> floats(const std::string& name, size_t count) {
    const Array& found = take(name, {count});
    std::vector<float> out(count);
    if (found.type == Array::Type::float32) {
      std::memcpy(out.data(), found.data, count * sizeof(float));
    } else if (found.type == Array::Type::float16) {
      for (size_t i = 0; i < count; i++) {
        uint16_t half;
        std::memcpy(&half, found.data + i * sizeof half, sizeof half);
        out[i] = widened(half);
      }
    } else {
      throw Misfit(name + " is not fp16 or fp32");
    }
    bool bad = false;
    for (float value : out) bad |= !std::isfinite(value);
    if (bad) throw Misfit(name + " holds a number that is not finite");
    return out;
  }

  void finish() const {
    for (const auto& [name, array] : arrays_)
      if (!array.taken) throw Misfit(name + " is not of this shape");
  }

 private:
  const Array& take(const std::string& name, std::initializer_list<size_t> shape) {
    const auto at = arrays_.find(name);
    if (at == arrays_.end()) throw Misfit(name + " is missing");
    if (!std::equal(shape.begin(), shape.end(), at->second.shape.begin(), at->second.shape.end()))
      throw Misfit(name + " has another shape");
    at->second.taken = true;
    return at->second;
  }

  const Array& take(const std::string& name, Array::Type type, std::initializer_list<size_t> shape) {
    const Array& found = take(name, shape);
    if (found.type != type) throw Misfit(name + " is not int8");
    return found;
  }

  static float widened(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (!exponent) return (sign ? -1.0f : 1.0f) * std::ldexp(static_cast<float>(fraction), -24);
    const uint32_t bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
  }

  std::unordered_map<std::string, Array> arrays_;
};

}  // namespace edgeseq
