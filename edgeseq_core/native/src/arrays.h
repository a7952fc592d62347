// Named arrays as they come from a file, and reading them with every size and value checked.
//
// A swap reads some 150 of them, so nothing here allocates an array at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "half.h"

namespace edgeseq {

// The bytes do not fit the base, or make no sense.
struct Misfit : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr size_t kMostDimensions = 2;

struct Array {
  enum class Type { int8, float16, float32 };
  Type type;
  size_t dimensions;
  std::array<size_t, kMostDimensions> shape;
  const char* data;
  bool taken = false;
};

// A name and its hash, which is made once where a name is asked for again and again.
struct Key {
  Key(std::string name) : text(std::move(name)), hash(hash_of(text)) {}
  Key(const char* name) : Key(std::string(name)) {}

  static size_t hash_of(std::string_view text) { return std::hash<std::string_view>()(text); }

  std::string text;
  size_t hash;
};

// Arrays by name, in a table of twice as many places.
class Arrays {
 public:
  // Null where there is none.
  Array* find(const Key& key) { return find(key.text, key.hash); }

  // Throws Misfit for a name that is there already.  The name must outlive it.
  void add(std::string_view name, const Array& array) {
    const size_t hash = Key::hash_of(name);
    if (find(name, hash)) throw Misfit(std::string(name) + " is there twice");
    entries_.push_back({name, hash, array});
    if (2 * entries_.size() <= places_.size()) return place(entries_.size() - 1);
    places_.assign(std::max<size_t>(512, 2 * places_.size()), 0);
    entries_.reserve(places_.size() / 2);
    for (size_t at = 0; at < entries_.size(); at++) place(at);
  }

  // A name that is not a part of the bytes, kept for as long as the arrays.
  std::string_view keep(std::string name) { return kept_.emplace_back(std::move(name)); }

  // Throws Misfit where there is one that nobody took.
  void check_taken() const {
    for (const Entry& one : entries_)
      if (!one.array.taken) throw Misfit(std::string(one.name) + " is not of this shape");
  }

 private:
  struct Entry {
    std::string_view name;
    size_t hash;
    Array array;
  };

  Array* find(std::string_view name, size_t hash) {
    if (places_.empty()) return nullptr;
    const size_t last = places_.size() - 1;  // a power of two, less one
    for (size_t at = hash & last; places_[at]; at = (at + 1) & last) {
      Entry& one = entries_[places_[at] - 1];
      if (one.hash == hash && one.name == name) return &one.array;
    }
    return nullptr;
  }

  void place(size_t entry) {
    const size_t last = places_.size() - 1;
    size_t at = entries_[entry].hash & last;
    while (places_[at]) at = (at + 1) & last;
    places_[at] = static_cast<uint32_t>(entry + 1);
  }

  std::vector<Entry> entries_;
  std::vector<uint32_t> places_;  // 1 + an entry; 0: free
  std::deque<std::string> kept_;
};

struct QuantizedRows {
  const int8_t* values;      // [rows, columns]
  std::vector<float> scale;  // [rows]
};

// Each array is asked for by name and shape; at the end, none may be left over.
class Reader {
 public:
  explicit Reader(Arrays arrays) : arrays_(std::move(arrays)) {}

  QuantizedRows matrix(const std::string& name, size_t rows, size_t columns) {
    const int8_t* values = codes(name, rows, columns);
    return {values, floats(name + ".scale", rows)};
  }

  // The values of a matrix without its scales.
  const int8_t* codes(const Key& key, size_t rows, size_t columns) {
    const Array& found = take(key, {rows, columns});
    if (found.type != Array::Type::int8) throw Misfit(key.text + " is not int8");
    const auto* values = reinterpret_cast<const int8_t*>(found.data);
    uint8_t bad = 0;
    for (size_t i = 0; i < rows * columns; i++) bad |= values[i] == -128;
    if (bad) throw Misfit(key.text + " holds -128, which no symmetric int8 has");
    return values;
  }

  std::vector<float> floats(const Key& key, size_t count) {
    std::vector<float> out(count);
    floats(key, count, out.data());
    return out;
  }

  void floats(const Key& key, size_t count, float* out) {
    const Array& found = take(key, {count});
    bool finite = true;
    if (found.type == Array::Type::float32) {
      std::memcpy(out, found.data, count * sizeof(float));
      for (size_t i = 0; i < count; i++) finite &= std::isfinite(out[i]);
    } else if (found.type == Array::Type::float16) {
      finite = widen(found.data, count, out);
    } else {
      throw Misfit(key.text + " is not fp16 or fp32");
    }
    if (!finite) throw Misfit(key.text + " holds a number that is not finite");
  }

  void finish() const { arrays_.check_taken(); }

 private:
  const Array& take(const Key& key, std::initializer_list<size_t> shape) {
    Array* found = arrays_.find(key);
    if (!found) throw Misfit(key.text + " is missing");
    if (found->dimensions != shape.size() || !std::equal(shape.begin(), shape.end(), found->shape.begin()))
      throw Misfit(key.text + " has another shape");
    found->taken = true;
    return *found;
  }

  Arrays arrays_;
};

}  // namespace edgeseq
