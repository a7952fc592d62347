// What a task changes of a base, folded into how the base's sums are finished.
//
// Scales and shifts of rows go into the row's scale and bias; low-rank parts B A keep small int8 matrices of
// their own: u = A x is quantized like any activation, and B u is added (`Finish`).  Immutable once made, but for
// what its first answer adds.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model.h"

namespace edgeseq {

struct CalibrationShape {
  size_t rank = 0, encoder_layers = 0, task_tokens = 0;
  std::vector<float> task_scores;           // added to the attention of each task token
  std::vector<uint32_t> rows;               // tokens with an own row
  std::vector<std::vector<uint32_t>> symbols;  // byte tokens of each own symbol
  std::vector<uint32_t> alphabet;           // what a constrained answer is made of
  size_t source_rows = 0;                   // own rows of symbols of sources
};

// One calibrated use of a matrix.
struct Fitted {
  Matrix a;                 // of all parts, `rank` rows a part
  Aligned<int8_t> b;        // packed, rank columns a row
  Aligned<float> b_scale;   // folded
  Aligned<float> scale, bias;
  Aligned<float> factor;    // of the input; empty: none
  Finish finish, reduce;    // of the sums, and of those of `a`
};

// Keys and values of the task's tokens at one decoder layer, which no source changes.
struct TaskMemory {
  std::vector<float> keys, values;  // [task_tokens, key_width]
};

class Calibration {
 public:
  // Throws Misfit.  The model must outlive it.
  // `zero`: of the kernels that it is for.
  Calibration(std::shared_ptr<const Model> model, CalibrationShape shape, Reader& arrays, int zero);
  Calibration(const Calibration&) = delete;
  Calibration& operator=(const Calibration&) = delete;

  const std::shared_ptr<const Model> model;
  const CalibrationShape shape;

  // Null where it leaves a use of a matrix as it is.
  const Fitted* at(const Linear& linear) const {
    const Fitted& found = fitted_[linear.id];
    return found.a.rows() ? &found : nullptr;
  }
  size_t symbols() const { return model->shape.vocabulary + shape.symbols.size(); }

  // y += the own row of a symbol, if it has one.
  void add_own_row(uint32_t token, float* y) const;

  Finish scores;           // of the table, with the task's biases
  std::vector<Finish> tail_scores;
  std::vector<float> vector;       // added to what the decoder reads
  Matrix own_rows;         // what is added to the embeddings of `shape.rows`
  Matrix source_rows;      // what is added to those of a source's tokens (`Request::own`)
  Finish own_scores;       // of own_rows
  std::vector<float> symbol_bias;  // of own symbols
  std::vector<float> outside;      // -inf outside the alphabet
  Matrix tokens;
  bool has_task_scores = false;
  // A decoder layer; made by the task's first answer (`Engine::remember`), which reads the decoder's matrices anyway.
  mutable std::vector<TaskMemory> memory;
  mutable std::once_flag remembered;
  size_t bytes() const;

 private:
  struct Scratch;

  std::vector<const Linear*> calibrated() const;
  size_t bytes_of(const Linear&) const;
  void fit(const Linear&, Reader&, Scratch&);
  const float* read_factor(const Part&, const PartKeys&, Reader&, float* out) const;
  void read_rows(Reader&);

  const int zero_;
  Arena arena_;  // of what it has of the base's uses
  std::vector<Fitted> fitted_;
  std::vector<int32_t> row_of_;  // of each symbol; -1: none
  Aligned<float> score_bias_, zeros_;
};

}  // namespace edgeseq
