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

namespace edgeseq {

// A fixed number of plain values, zero at first.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t size) : size_(size) {
    if (!size) return;
    const size_t bytes = padded(size * sizeof(T), 64);
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
    std::memset(data_.get(), 0, bytes);
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

  // At least so many values; what was there is lost when it grows.
  void reserve(size_t size) {
    if (size > size_) *this = Aligned(size);
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// [rows, columns] int8 values with a scale a row.
class Matrix {
 public:
  Matrix() = default;
  Matrix(size_t rows, size_t columns)
      : rows_(rows),
        columns_(columns),
        groups_(padded(columns, kDepth) / 4),
        values_(padded(rows, kLanes) * groups_ * 4),
        offset_(padded(rows, kLanes)),
        scale_(padded(rows, kLanes)) {}

  void put(size_t first, const QuantizedRows& from, size_t count) {
    for (size_t i = 0; i < count; i++) {
      const int8_t* row = from.values + i * columns_;
      int8_t* to = &values_[place(first + i, 0)];
      size_t c = 0;
      for (; c + 4 <= columns_; c += 4) std::memcpy(to + c * kLanes, row + c, 4);
      for (; c < columns_; c++) to[c / 4 * 64 + c % 4] = row[c];
      int32_t sum = 0;
      for (c = 0; c < columns_; c++) sum += row[c];
      offset_[first + i] = -128 * sum;
      scale_[first + i] = from.scale[i];
    }
  }

  // y += row * factor, [columns], a multiple of 4.
  void add_row(size_t row, float factor, float* y) const {
    const float scale = scale_[row] * factor;
    const int8_t* group = &values_[place(row, 0)];
    for (size_t c = 0; c < columns_; c += 4, group += 64)
      for (size_t i = 0; i < 4; i++) y[c + i] += scale * static_cast<float>(group[i]);
  }

  // The values of a row as codes of activations, whose zero is `zero`.
  void read_codes(size_t row, int zero, uint8_t* codes) const {
    const int8_t* group = &values_[place(row, 0)];
    for (size_t c = 0; c < columns_; c++) codes[c] = static_cast<uint8_t>(group[c / 4 * 64 + c % 4] + zero);
  }

  PackedView view() const { return {values_.data(), offset_.data(), groups_}; }
  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  size_t blocks() const { return padded(rows_, kLanes) / kLanes; }
  const Aligned<float>& scale() const { return scale_; }
  size_t bytes() const { return values_.bytes() + offset_.bytes() + scale_.bytes(); }

 private:
  size_t place(size_t row, size_t column) const {
    return (row / kLanes * groups_ + column / 4) * 64 + row % kLanes * 4 + column % 4;
  }

  size_t rows_ = 0, columns_ = 0, groups_ = 0;
  Aligned<int8_t> values_;
  Aligned<int32_t> offset_;
  Aligned<float> scale_;
};

}  // namespace edgeseq
