// Named arrays as they come from a file, and reading them with every size and value checked.
//
// A swap reads some 150 of them, so nothing here allocates an array at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "loops.h"

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
  size_t first;                // byte of the data
  const char* data = nullptr;  // of a layout: none
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

// Names of arrays and where they lie, in a table of twice as many places; immutable once made.
class Layout {
 public:
  // Reads what follows a safetensors header's metadata; throws Misfit for data of another size.
  Layout(std::string_view text, size_t bytes);
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;

  // How many there are where there is none.
  size_t find(std::string_view name, size_t hash) const {
    if (places_.empty()) return entries_.size();
    const size_t last = places_.size() - 1;  // a power of two, less one
    for (size_t at = hash & last; places_[at]; at = (at + 1) & last) {
      const Entry& one = entries_[places_[at] - 1];
      if (one.hash == hash && one.name == name) return places_[at] - 1;
    }
    return entries_.size();
  }

  std::string_view name(size_t at) const { return entries_[at].name; }

  const std::string text;
  const size_t bytes;
  std::vector<Array> arrays;

 private:
  struct Entry {
    std::string_view name;  // in `text` or `kept_`
    size_t hash;
  };

  void add(std::string_view name, const Array& array);
  void place(size_t entry);

  std::vector<Entry> entries_;
  std::vector<uint32_t> places_;  // 1 + an entry; 0: free
  std::list<std::string> kept_;  // names that were written with escapes
};

// The arrays of one file.
class Arrays {
 public:
  Arrays() = default;
  Arrays(std::shared_ptr<const Layout> layout, const char* data) : layout_(std::move(layout)), arrays_(layout_->arrays) {
    for (Array& one : arrays_) one.data = data + one.first;
  }

  // Null where there is none.
  Array* find(const Key& key) {
    const size_t at = layout_ ? layout_->find(key.text, key.hash) : 0;
    return at < arrays_.size() ? &arrays_[at] : nullptr;
  }

  // Throws Misfit where there is one that nobody took.
  void check_taken() const {
    for (size_t at = 0; at < arrays_.size(); at++)
      if (!arrays_[at].taken) throw Misfit(std::string(layout_->name(at)) + " is not of this shape");
  }

 private:
  std::shared_ptr<const Layout> layout_;
  std::vector<Array> arrays_;
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

  // The values of a matrix without its scales; who packs them refuses -128.
  const int8_t* codes(const Key& key, size_t rows, size_t columns) {
    const Array& found = take(key, {rows, columns});
    if (found.type != Array::Type::int8) throw Misfit(key.text + " is not int8");
    return reinterpret_cast<const int8_t*>(found.data);
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
      finite = loops().widen(found.data, count, out);
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
