// The network, a layer at a time: encoder, memory, and one step of the decoder.
//
// All rows of a batch share every product, whatever their tasks; what differs (how sums are finished, low-rank
// parts, own rows) is looked up by the row's task.  Nothing is padded to the longest row.
#pragma once

#include <vector>

#include "calibration.h"

namespace edgeseq {

// What can be copied of a source.
struct Copyable {
  Aligned<float> keys;            // [tokens, width], turned to their places
  std::vector<uint32_t> symbols;  // that its tokens stand for, each once
  std::vector<size_t> which;      // of them each token stands for
};

// What the decoder reads of a source: keys and values of task tokens and source, a decoder layer.  It may be
// of a longer one before: nothing beyond `count` is used.
struct Memory {
  size_t count = 0;
  std::vector<Aligned<float>> keys, values;  // [kv_heads][count][width]
  Aligned<float> added;                // to scores, where task tokens have some; else empty
  Copyable copyable;                   // where the base copies
};

// One to encode: its tokens, their own rows (1 + a row of the task's `source_rows`, 0: none; empty: none at all),
// and the symbols of the target that they stand for (where the base copies).
struct Source {
  const std::vector<uint32_t>& tokens;
  const std::vector<uint32_t>& own;
  const std::vector<uint32_t>& symbols;
  uint16_t task;  // index into the batch's tasks
};

// A place of the batch that a target is decoded in.
struct Place {
  uint16_t task;  // index into the batch's tasks
  const Memory* memory;
  uint32_t token;  // that the next step reads
  size_t cache;    // which of the caches is its own
};

// Keys and values of the decoded tokens of all places, a decoder layer.
class Caches {
 public:
  void reserve(const Model& model, size_t places, size_t tokens);
  // [kv_heads][tokens][width]
  float* keys(size_t place, size_t layer) { return &data_[place * each_ + starts_[layer]]; }
  float* values(size_t place, size_t layer) { return keys(place, layer) + widths_[layer] * tokens_; }
  size_t tokens() const { return tokens_; }  // that each has room for
  // What place `from` has of its first `length` tokens, for place `to` as well.
  void copy(const Model& model, size_t from, size_t to, size_t length);

 private:
  Aligned<float> data_;
  std::vector<size_t> starts_, widths_;
  size_t each_ = 0, tokens_ = 0;
};

// Buffers that grow to the largest batch they have seen, so that no step allocates.  One a thread.
struct Workspace {
  std::vector<Memory> memories;  // of a batch's rows
  Aligned<float> x, wide, mixed, row, scores, u, x_scale, logits;
  Aligned<LowScale> u_scale;
  std::vector<float> shares;  // of symbols of a source
  Aligned<uint8_t> codes, u_codes;
  Caches caches;
  size_t codes_stride = 0, logits_stride = 0;
};

class Forward {
 public:
  // `tasks` are the distinct calibrations of the batch; a null one is the bare base.
  Forward(const Model& model, const Kernels& kernels, Workspace& space,
          std::vector<const Calibration*> tasks);

  // Residual stream after the first `layers` layers, for sources one after another: left in `space.x`.
  void encode(const std::vector<Source>& sources, size_t layers);
  // What the decoder reads of them.
  void memorize(const std::vector<Source>& sources, Memory* memory);
  // Scores of each place's next token, [places, logits_stride]; every place has decoded `at` tokens.
  float* step(const std::vector<Place>& places, size_t at);
  // Keys and values of a task's tokens, for `memorize`; the task is the only one of the batch.
  void remember(const Calibration& task);
  // Symbols that a place's scores have.
  size_t symbols(uint16_t task) const;

 private:
  struct Segment {  // consecutive rows of one task
    uint16_t task;
    size_t first, end;
  };

  void begin(size_t rows);
  void set_tasks(const std::vector<uint16_t>& of_row);
  void look_up(uint32_t token, float factor, float* y);
  void embed(const Calibration&, uint32_t token, float* y);
  void quantize_norm(const Aligned<float>& gain, const float* factor = nullptr);
  void quantize_rows(const float* from, size_t stride, size_t width, const Linear* factors = nullptr);
  void whole(const Matrix&, const std::vector<const Finish*>&, float* y, size_t stride);
  void linear(const Linear&, size_t first, size_t end, Mode, float* y, size_t stride, const Matrix* then = nullptr);
  LowRank reduce(const Linear&, size_t first, size_t end);
  void feed(const FfnSite&, const Matrix* then);
  void self_attention(const AttentionSite&, const std::vector<size_t>& lengths, const Matrix* then);
  void read_copyable(const std::vector<Source>& sources, Memory* memory);
  void score(const std::vector<Place>& places, size_t at);
  void own_scores(float* logits, const float* own, const Calibration&);
  void copy(const std::vector<Place>& places, size_t at);
  void score_tails();
  void join_bands();

  const Model& model_;
  const Kernels& kernels_;
  Workspace& space_;
  const std::vector<const Calibration*> tasks_;
  std::vector<const Finish*> finish_;
  std::vector<uint16_t> task_;  // of each row
  std::vector<Segment> segments_;
  std::vector<uint16_t> zeros_;  // tasks of rows that are all of one
  size_t rows_ = 0;
};

}  // namespace edgeseq
