#include "calibration.h"

#include <cmath>

namespace edgeseq {

PartKeys::PartKeys(const std::string& site, const std::string& part)
    : a(site + "." + part + ".a"),
      a_scale(a.text + ".scale"),
      b(site + "." + part + ".b"),
      b_scale(b.text + ".scale"),
      scale(""),
      shift(""),
      hidden(""),
      by_head(part == "q") {
  const std::string of = site + ".";
  if (part == "q") scale = of + "logit";
  if (part == "k") scale = of + "key";
  if (part == "v") scale = of + "value";
  if (part == "o" || part == "down") scale = of + "scale", shift = of + "shift";
  if (part == "down") hidden = of + "hidden";
  if (part == "gate") shift = of + "gate";
  if (part == "tails") shift = of + "tail";
}

// Numbers of one use, as they are read.
struct Calibration::Scratch {
  explicit Scratch(const Model& model)
      : factor(std::max(model.widest(), model.deepest())), shift(factor), b_scale(factor), scale(factor), bias(factor) {}

  // The base's scales and biases of a part, and the scales of its B, with its factors and shifts in them.
  void fold(const float* __restrict own_scale, const float* __restrict own_bias, const Part& part, float* __restrict b) {
    const float *__restrict by = factor.data(), *__restrict more = shift.data(), *__restrict b_own = b_scale.data();
    float *__restrict to_scale = scale.data() + part.first, *__restrict to_bias = bias.data() + part.first;
    for (size_t n = 0; n < part.rows; n++) {
      to_scale[n] = own_scale[n] * (1 + by[n]);
      to_bias[n] = own_bias[n] * (1 + by[n]) + more[n];
      b[n] = b_own[n] * (1 + by[n]);
    }
  }

  std::vector<float> factor, shift, b_scale;  // of a part
  std::vector<float> scale, bias;             // folded, of all parts
};

Calibration::Calibration(std::shared_ptr<const Model> of, CalibrationShape given, Reader& arrays, int zero)
    : model(std::move(of)), shape(std::move(given)), zero_(zero), fitted_(model->linears().size()) {
  const size_t d = model->shape.d_model;
  if (shape.encoder_layers > model->shape.encoder_layers) throw Misfit("it calibrates more layers than there are");
  if (!shape.rank || shape.rank > d) throw Misfit("its rank makes no sense");
  if (!shape.task_tokens || shape.task_scores.size() != shape.task_tokens) throw Misfit("its task tokens make no sense");
  const std::vector<const Linear*> uses = calibrated();
  size_t bytes = 0, parts = 0;
  for (const Linear* one : uses) bytes += bytes_of(*one), parts = std::max(parts, one->parts.size());
  arena_ = Arena(bytes);
  zeros_ = Aligned<float>(padded(std::max(parts * padded(shape.rank, 4), shape.rows.size()), kLanes));
  Scratch scratch(*model);
  for (const Linear* one : uses) fit(*one, arrays, scratch);
  tokens = Matrix(shape.task_tokens, d);
  tokens.put(0, arrays.matrix("token", shape.task_tokens, d), shape.task_tokens);
  for (float score : shape.task_scores) has_task_scores = has_task_scores || score != 0;
  vector = arrays.floats("vector", d);
  read_rows(arrays);
  arrays.finish();
}

std::vector<const Linear*> Calibration::calibrated() const {
  std::vector<const Linear*> out;
  const auto add = [&](std::initializer_list<const Linear*> uses) { out.insert(out.end(), uses); };
  for (size_t l = model->encoder.size() - shape.encoder_layers; l < model->encoder.size(); l++) {
    const EncoderLayer& layer = model->encoder[l];
    add({&layer.self.qkv, &layer.self.out, &layer.ffn.up, &layer.ffn.down});
  }
  for (const DecoderLayer& layer : model->decoder) {
    add({&layer.self.qkv, &layer.self.out, &layer.cross.qkv, &layer.cross.out});
    if (layer.feeds) add({&layer.ffn1.up, &layer.ffn1.down, &layer.ffn2.up, &layer.ffn2.down});
  }
  if (model->shape.copies) add({&model->pointer.query_gate_key});
  if (!model->tails.empty()) add({&model->reach});
  return out;
}

// What `fit` takes of the arena at most.
size_t Calibration::bytes_of(const Linear& linear) const {
  const size_t rank = padded(shape.rank, 4), rows = linear.matrix->blocks() * kLanes, columns = linear.matrix->columns();
  size_t sum = Matrix::bytes_of(linear.parts.size() * rank, columns) + Arena::bytes_of(rows * rank);
  sum += 3 * Arena::bytes_of(rows * sizeof(float));
  for (const PartKeys& keys : linear.keys)
    if (!keys.hidden.text.empty()) sum += Arena::bytes_of(padded(columns, kLanes) * sizeof(float));
  return sum;
}

void Calibration::fit(const Linear& linear, Reader& arrays, Scratch& scratch) {
  Fitted& out = fitted_[linear.id];
  const Matrix& matrix = *linear.matrix;
  const size_t rank = padded(shape.rank, 4), rows = matrix.blocks() * kLanes, columns = matrix.columns();
  out.a = Matrix(linear.parts.size() * rank, columns, &arena_);
  out.b = Aligned<int8_t>(rows * rank, &arena_);
  out.b_scale = Aligned<float>(rows, &arena_);
  std::fill_n(scratch.scale.data(), rows, 0.0f);
  std::fill_n(scratch.bias.data(), rows, 0.0f);
  bool low = false;  // whether any B is not zero
  for (size_t p = 0; p < linear.parts.size(); p++) {
    const Part& part = linear.parts[p];
    const PartKeys& keys = linear.keys[p];
    out.a.put(p * rank, arrays.codes(keys.a, shape.rank, columns), shape.rank);
    arrays.floats(keys.a_scale, shape.rank, out.a.scale_from(p * rank));
    const int8_t* b = arrays.codes(keys.b, part.rows, shape.rank);
    arrays.floats(keys.b_scale, part.rows, scratch.b_scale.data());
    read_factors(part, keys, arrays, scratch);
    if (!keys.hidden.text.empty()) {
      out.factor = Aligned<float>(padded(columns, kLanes), &arena_);
      arrays.floats(keys.hidden, columns, out.factor.data());
      for (size_t c = 0; c < columns; c++) out.factor[c] = 1 + out.factor[c];
    }
    scratch.fold(matrix.scale().data() + part.first, linear.bias.data() + part.first, part, &out.b_scale[part.first]);
    pack(b, part.rows, shape.rank, part.first, rank / 4, out.b.data());
    uint8_t any = 0;
    for (size_t i = 0; i < part.rows * shape.rank; i++) any |= static_cast<uint8_t>(b[i]);
    low |= any;
  }
  if (low)
    for (size_t i = 0; i < rows * rank; i++) out.b[i] = static_cast<int8_t>(out.b[i] + zero_);
  out.finish = linear.bare;  // where the task changes nothing, all tasks read the same numbers
  const auto changed = [&](const std::vector<float>& own, const float* base) {
    return !std::equal(own.data(), own.data() + rows, base);
  };
  if (changed(scratch.scale, linear.bare.scale) || changed(scratch.bias, linear.bare.bias)) {
    out.scale = Aligned<float>(rows, &arena_);
    out.bias = Aligned<float>(rows, &arena_);
    std::copy_n(scratch.scale.data(), rows, out.scale.data());
    std::copy_n(scratch.bias.data(), rows, out.bias.data());
    out.finish.scale = out.scale.data();
    out.finish.bias = out.bias.data();
  }
  if (low) {
    out.finish.low = out.b.data();
    out.finish.low_scale = out.b_scale.data();
    out.finish.part_of_block = linear.part_of_block.data();
    out.finish.rank = rank;
  }
  out.reduce.scale = out.a.scale().data();
  out.reduce.bias = zeros_.data();
}

// Scales and shifts of a part's rows, zero where it has none.
void Calibration::read_factors(const Part& part, const PartKeys& keys, Reader& arrays, Scratch& scratch) const {
  float *factor = scratch.factor.data(), *shift = scratch.shift.data();
  if (keys.scale.text.empty()) {
    std::fill_n(factor, part.rows, 0.0f);
  } else if (keys.by_head) {
    const size_t width = model->shape.head_width;
    const std::vector<float> heads = arrays.floats(keys.scale, part.rows / width);
    for (size_t n = 0; n < part.rows; n++) factor[n] = heads[n / width];
  } else {
    arrays.floats(keys.scale, part.rows, factor);
  }
  if (keys.shift.text.empty()) {
    std::fill_n(shift, part.rows, 0.0f);
  } else {
    arrays.floats(keys.shift, part.rows, shift);
  }
}

void Calibration::read_rows(Reader& arrays) {
  const size_t d = model->shape.d_model, known = model->shape.vocabulary, count = shape.rows.size();
  for (const auto& bytes : shape.symbols) {
    if (bytes.empty()) throw Misfit("a symbol of its own is empty");
    for (uint32_t token : bytes)
      if (token >= known) throw Misfit("a symbol of its own is not made of bytes");
  }
  row_of_.assign(symbols(), -1);
  for (size_t i = 0; i < count; i++) {
    if (shape.rows[i] >= symbols()) throw Misfit("an own row is of no symbol");
    if (row_of_[shape.rows[i]] >= 0) throw Misfit("a symbol has two own rows");
    row_of_[shape.rows[i]] = static_cast<int32_t>(i);
  }
  own_rows = Matrix(count, d);
  if (count) own_rows.put(0, arrays.matrix("rows", count, d), count);
  source_rows = Matrix(shape.source_rows, d);
  if (shape.source_rows) source_rows.put(0, arrays.matrix("source_rows", shape.source_rows, d), shape.source_rows);
  own_scores.scale = own_rows.scale().data();
  own_scores.bias = zeros_.data();

  const std::vector<float> row_bias = arrays.floats("row_bias", count);
  const float other = arrays.floats("other_bias", 1)[0];
  score_bias_ = Aligned<float>(model->vocabulary_bias.size());
  for (size_t v = 0; v < score_bias_.size(); v++) score_bias_[v] = model->vocabulary_bias[v] + other;
  symbol_bias.assign(shape.symbols.size(), other);
  for (size_t i = 0; i < count; i++) {
    const uint32_t token = shape.rows[i];
    if (token < known) {
      score_bias_[token] = model->vocabulary_bias[token] + row_bias[i];
    } else {
      symbol_bias[token - known] = row_bias[i];
    }
  }
  scores.scale = model->table.scale().data();
  scores.bias = score_bias_.data();
  for (const Tail& tail : model->tails) {
    tail_scores.emplace_back();
    tail_scores.back().scale = tail.rows.scale().data();
    tail_scores.back().bias = score_bias_.data() + tail.first;
  }
  outside.assign(symbols(), -INFINITY);
  for (uint32_t token : shape.alphabet) {
    if (token >= symbols()) throw Misfit("its alphabet has a symbol that is none");
    outside[token] = 0;
  }
}

void Calibration::add_own_row(uint32_t token, float* y) const {
  if (row_of_[token] >= 0) own_rows.add_row(static_cast<size_t>(row_of_[token]), 1, y);
}

size_t Calibration::bytes() const {
  size_t sum = arena_.size() + own_rows.bytes() + source_rows.bytes() + tokens.bytes() + score_bias_.bytes();
  sum += zeros_.bytes() + 4 * (outside.size() + row_of_.size());
  for (const auto& one : memory) sum += 4 * (one.keys.size() + one.values.size());
  return sum;
}

}  // namespace edgeseq
