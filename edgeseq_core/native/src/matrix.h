// Memory aligned to cache lines, and int8 matrices packed as `kernels.h` says.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "arrays.h"
#include "kernels.h"
#include "loops.h"

namespace edgeseq {

// Memory that many arrays share, so that one allocation makes room for all of them and one frees them.
class Arena {
 public:
  Arena() = default;
  explicit Arena(size_t bytes) : size_(bytes), data_(static_cast<char*>(std::aligned_alloc(64, padded(bytes, 64)))) {
    if (!data_) throw std::bad_alloc();
  }

  static size_t bytes_of(size_t bytes) { return padded(bytes, 64); }

  void* take(size_t bytes) {
    if (bytes_of(bytes) > size_ - used_) throw std::logic_error("an arena is too small");
    char* out = data_.get() + used_;
    used_ += bytes_of(bytes);
    return out;
  }

  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  size_t size_ = 0, used_ = 0;
  std::unique_ptr<char, Free> data_;
};

[[noreturn]] inline void no_symmetric_int8() { throw Misfit("a matrix holds -128, which no symmetric int8 has"); }

// A fixed number of plain values, zero at first.  Those of an arena are what lies there, and must not outlive it.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t size, Arena* arena = nullptr) : data_(nullptr, Free{!arena}), size_(size) {
    if (!size) return;
    const size_t bytes = padded(size * sizeof(T), 64);
    data_.reset(static_cast<T*>(arena ? arena->take(bytes) : std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
    if (!arena) clear();
  }
  Aligned(const std::vector<float>& values, size_t size) : Aligned(size) {
    std::copy(values.begin(), values.end(), data_.get());
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](size_t at) { return data_.get()[at]; }
  const T& operator[](size_t at) const { return data_.get()[at]; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

  void clear() { std::memset(data_.get(), 0, padded(bytes(), 64)); }

  // At least so many values; what was there is lost when it grows.
  T* reserve(size_t size) {
    if (size > size_) *this = Aligned(size);
    return data();
  }

 private:
  struct Free {
    bool owned = true;
    void operator()(T* p) const {
      if (owned) std::free(p);
    }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// [rows, columns] int8 values with a scale a row.
class Matrix {
 public:
  Matrix() = default;
  Matrix(size_t rows, size_t columns, Arena* arena = nullptr)
      : rows_(rows),
        columns_(columns),
        places_{padded(columns, kDepth) / 4, padded(rows, kLanes) / kLanes},
        values_(places_.blocks * places_.groups * 64, arena),
        offset_(padded(rows, kLanes), arena),
        scale_(padded(rows, kLanes), arena) {
    if (arena) values_.clear(), offset_.clear(), scale_.clear();
  }

  // What one takes of an arena.
  static size_t bytes_of(size_t rows, size_t columns) {
    const size_t lanes = padded(rows, kLanes);
    return Arena::bytes_of(lanes * padded(columns, kDepth)) + 2 * Arena::bytes_of(lanes * 4);
  }

  void put(size_t first, const QuantizedRows& from, size_t count) {
    put(first, from.values, count);
    std::copy_n(from.scale.data(), count, &scale_[first]);
  }

  // Rows from the `first` on, without their scales.  Throws Misfit.
  void put(size_t first, const int8_t* values, size_t count) {
    loops().pack(values, count, columns_, first, places_, values_.data());
    if (!loops().offsets(values, count, columns_, &offset_[first])) no_symmetric_int8();
  }

  float* scale_from(size_t row) { return &scale_[row]; }

  // y += row * factor, [columns], a multiple of 4.
  void add_row(size_t row, float factor, float* y) const {
    const float scale = scale_[row] * factor;
    const int8_t* group = &values_[place(row)];
    for (size_t c = 0, step = places_.step(row / kLanes); c < columns_; c += 4, group += step)
      for (size_t i = 0; i < 4; i++) y[c + i] += scale * static_cast<float>(group[i]);
  }

  // The values of a row as codes of activations, whose zero is `zero`.
  void read_codes(size_t row, int zero, uint8_t* codes) const {
    const int8_t* group = &values_[place(row)];
    const size_t step = places_.step(row / kLanes);
    for (size_t c = 0; c < columns_; c++) codes[c] = static_cast<uint8_t>(group[c / 4 * step + c % 4] + zero);
  }

  // Asks for rows [first, end), which are read next.
  void prefetch(size_t first, size_t end) const {
    for (size_t block = first / kLanes; block < padded(end, kLanes) / kLanes; block++)
      for (size_t g = 0, at = places_.at(block); g < places_.groups; g++, at += places_.step(block))
        __builtin_prefetch(&values_[at]);
  }

  PackedView view() const { return {values_.data(), offset_.data(), places_}; }
  size_t weight_bytes() const { return values_.bytes(); }
  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  size_t blocks() const { return places_.blocks; }
  const Aligned<float>& scale() const { return scale_; }
  size_t bytes() const { return values_.bytes() + offset_.bytes() + scale_.bytes(); }

 private:
  size_t place(size_t row) const { return places_.at(row / kLanes) + row % kLanes * 4; }

  size_t rows_ = 0, columns_ = 0;
  Places places_{};
  Aligned<int8_t> values_;
  Aligned<int32_t> offset_;
  Aligned<float> scale_;
};

}  // namespace edgeseq
