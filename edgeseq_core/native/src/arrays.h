// Named arrays as they come from a file, and reading them with every size and value checked.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
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
  const void* data;
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
    const auto* values = static_cast<const int8_t*>(found.data);
    for (size_t i = 0; i < rows * columns; i++)
      if (values[i] == -128) throw Misfit(name + " holds -128, which no symmetric int8 has");
    return {values, floats(name + ".scale", rows)};
  }

  std::vector<float> floats(const std::string& name, size_t count) {
    const Array& found = take(name, {count});
    std::vector<float> out(count);
    if (found.type == Array::Type::float32) {
      std::memcpy(out.data(), found.data, count * sizeof(float));
    } else {
      const auto* halves = static_cast<const uint16_t*>(found.data);
      for (size_t i = 0; i < count; i++) out[i] = widened(halves[i]);
    }
    for (float value : out)
      if (!std::isfinite(value)) throw Misfit(name + " holds a number that is not finite");
    return out;
  }

  void finish() const {
    for (const auto& [name, array] : arrays_)
      if (!taken_.count(name)) throw Misfit(name + " is not of this shape");
  }

 private:
  const Array& take(const std::string& name, std::vector<size_t> shape) {
    const auto at = arrays_.find(name);
    if (at == arrays_.end()) throw Misfit(name + " is missing");
    if (at->second.shape != shape) throw Misfit(name + " has another shape");
    taken_.insert(name);
    return at->second;
  }

  const Array& take(const std::string& name, Array::Type type, std::vector<size_t> shape) {
    const Array& found = take(name, std::move(shape));
    if (found.type != type) throw Misfit(name + " is not int8");
    return found;
  }

  static float widened(uint16_t half) {
    const float sign = half & 0x8000 ? -1.0f : 1.0f;
    const int exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (!exponent) return sign * std::ldexp(static_cast<float>(fraction), -24);
    return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  }

  std::unordered_map<std::string, Array> arrays_;
  std::set<std::string> taken_;
};

}  // namespace edgeseq
