// The base: matrices that layers share in cycles, and what each use of them has of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "matrix.h"

namespace edgeseq {

struct Shape {
  size_t vocabulary, d_model, head_width, encoder_layers, decoder_layers, task_tokens, max_tokens;
  std::vector<size_t> query_width, key_width;  // of each attention group
  std::vector<size_t> encoder_ffn;             // of each group of the encoder's FFNs
  std::vector<size_t> decoder_ffn;             // of each decoder layer; 0: none
  bool copies = false;                         // whether it points into the source
  std::vector<size_t> tail_sizes, tail_widths;  // of bands of tokens after the first

  size_t first_band() const;

  void check() const;  // throws Misfit for what the kernels cannot compute
};

// Rows of a matrix that are one part of a site: queries, keys, ...
struct Part {
  std::string name;
  size_t first, rows;
};

// What a calibration's arrays of a part are called (edgeseq_core/model/calibration.py, FACTORS); empty: it has none.
struct PartKeys {
  PartKeys(const std::string& site, const std::string& part);

  Key a, a_scale, b, b_scale, scale, shift, hidden;
  bool by_head;  // whether there is one scale a head
};

// One use of a matrix: its own biases, and how the bare base finishes its sums.
struct Linear {
  size_t id;         // counted over the base
  std::string site;  // its name, as calibrations call it
  const Matrix* matrix;
  std::vector<Part> parts;
  std::vector<PartKeys> keys;          // of each part
  std::vector<uint8_t> part_of_block;  // which of them each block of 16 rows is of
  Aligned<float> bias;
  Finish bare;

  size_t rows() const {  // of all parts
    size_t sum = 0;
    for (const Part& part : parts) sum += part.rows;
    return sum;
  }
};

struct AttentionSite {
  size_t heads, kv_heads, query_width, key_width;
  Aligned<float> gain;
  Linear qkv, out;
};

struct FfnSite {
  size_t width;
  Aligned<float> gain;
  Linear up, down;
};

struct EncoderLayer {
  AttentionSite self;
  FfnSite ffn;
};

struct DecoderLayer {
  AttentionSite self, cross;
  bool feeds;  // whether it has FFNs
  FfnSite ffn1, ffn2;
};

// What can copy a symbol of the source: a head of its own, whose keys turn faster than others, and a gate.
struct Pointer {
  size_t width;
  Linear query_gate_key;  // query and gate lie together, as the decoder wants both
  Aligned<float> cosine, sine;  // [max_tokens + 1, width / 4]
  Aligned<float> nearness;      // added to the score of a key so far away, [2 * max_tokens + 16]; 0: in the middle

  size_t key_block() const { return width / kLanes + 1; }
};

// A band of rarer tokens: rows of few numbers, and a matrix that widens them.
struct Tail {
  size_t first;               // its first token
  Matrix rows;                // [tokens, width]
  Matrix wide, narrow;        // [d_model, width], and the same turned over, whose scales are factors of its input
  Aligned<float> zeros, ones, factors;
  Finish widened, narrowed;

  bool has(size_t token) const { return token >= first && token < first + rows.rows(); }
};

class Model {
 public:
  Model(const Shape& shape, Reader& arrays);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Shape shape;
  Matrix table;  // embeddings of all tokens, or of the first band, which also score them
  std::vector<Tail> tails;
  Aligned<float> vocabulary_bias, encoder_gain, decoder_gain;
  std::vector<EncoderLayer> encoder;
  std::vector<DecoderLayer> decoder;
  Aligned<float> cosine, sine;  // [max_tokens + 1, head_width / 4]
  Pointer pointer;              // where `shape.copies`
  Linear reach;                 // how likely each tail is, where there are some

  const std::vector<const Linear*>& linears() const { return linears_; }
  size_t head_quarter() const { return shape.head_width / 4; }
  size_t widest() const { return widest_; }  // output of any site
  size_t deepest() const { return deepest_; }  // input of any site
  size_t bytes() const;

 private:
  struct AttentionGroup {
    Matrix qkv, out;
  };
  struct FfnGroup {
    Matrix up, down;
  };

  void read_groups(Reader&);
  void read_tails(Reader&);
  void read_pointer(Reader&);
  void number_sites();
  AttentionSite attention(Reader&, const std::string& site, size_t group);
  FfnSite ffn(Reader&, const std::string& site, const std::string& norm, const FfnGroup&, size_t width);
  Linear linear(Reader&, const std::string& site, const Matrix&, std::vector<Part>);

  std::vector<AttentionGroup> attention_groups_;
  std::vector<FfnGroup> ffn_groups_, small_groups_;
  Matrix pointer_matrix_, reach_matrix_;
  std::vector<const Linear*> linears_;
  size_t widest_ = 0, deepest_ = 0;
};

}  // namespace edgeseq
