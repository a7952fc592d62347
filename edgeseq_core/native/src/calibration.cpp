#include "calibration.h"

#include <cmath>

namespace edgeseq {
namespace {

// Which tensors of a site hold a part's factors (edgeseq_core/model/calibration.py, FACTORS).
struct Factors {
  const char *scale, *shift, *hidden;
};
Factors factors_of(const std::string& part) {
  if (part == "q") return {"logit", nullptr, nullptr};
  if (part == "k") return {"key", nullptr, nullptr};
  if (part == "v") return {"value", nullptr, nullptr};
  if (part == "o") return {"scale", "shift", nullptr};
  if (part == "down") return {"scale", "shift", "hidden"};
  if (part == "gate") return {nullptr, "gate", nullptr};
  if (part == "tails") return {nullptr, "tail", nullptr};
  return {nullptr, nullptr, nullptr};
}

}  // namespace

Calibration::Calibration(std::shared_ptr<const Model> of, CalibrationShape given, Reader& arrays)
    : model(std::move(of)), shape(std::move(given)), fitted_(model->linears().size()) {
  const size_t d = model->shape.d_model;
  if (shape.encoder_layers > model->shape.encoder_layers) throw Misfit("it calibrates more layers than there are");
  if (!shape.rank || shape.rank > d) throw Misfit("its rank makes no sense");
  if (!shape.task_tokens || shape.task_scores.size() != shape.task_tokens) throw Misfit("its task tokens make no sense");
  const size_t first = model->shape.encoder_layers - shape.encoder_layers;
  for (size_t l = first; l < model->encoder.size(); l++) {
    const EncoderLayer& layer = model->encoder[l];
    for (const Linear* one : {&layer.self.qkv, &layer.self.out, &layer.ffn.up, &layer.ffn.down}) fit(*one, arrays);
  }
  for (const DecoderLayer& layer : model->decoder) {
    for (const Linear* one : {&layer.self.qkv, &layer.self.out, &layer.cross.qkv, &layer.cross.out}) fit(*one, arrays);
    if (layer.feeds)
      for (const Linear* one : {&layer.ffn1.up, &layer.ffn1.down, &layer.ffn2.up, &layer.ffn2.down}) fit(*one, arrays);
  }
  if (model->shape.copies) fit(model->pointer.query_gate_key, arrays);
  if (!model->tails.empty()) fit(model->reach, arrays);
  tokens = Matrix(shape.task_tokens, d);
  tokens.put(0, arrays.matrix("token", shape.task_tokens, d), shape.task_tokens);
  for (float score : shape.task_scores) has_task_scores = has_task_scores || score != 0;
  vector = arrays.floats("vector", d);
  read_rows(arrays);
  arrays.finish();
}

void Calibration::fit(const Linear& linear, Reader& arrays) {
  auto out = std::make_unique<Fitted>();
  const Matrix& matrix = *linear.matrix;
  const size_t rank = padded(shape.rank, 4), rows = matrix.blocks() * kLanes, columns = matrix.columns();
  out->a = Matrix(linear.parts.size() * rank, columns);
  out->no_bias = Aligned<float>(out->a.blocks() * kLanes);
  out->b = Aligned<int8_t>(rows * rank);
  out->b_scale = Aligned<float>(rows);
  out->scale = Aligned<float>(rows);
  out->bias = Aligned<float>(rows);
  out->part_of_block.resize(matrix.blocks());
  bool low = false;  // whether any B is not zero
  for (size_t p = 0; p < linear.parts.size(); p++) {
    const Part& part = linear.parts[p];
    const std::string name = linear.site + "." + part.name;
    out->a.put(p * rank, arrays.matrix(name + ".a", shape.rank, columns), shape.rank);
    const QuantizedRows b = arrays.matrix(name + ".b", part.rows, shape.rank);
    const Factors factors = factors_of(part.name);
    std::vector<float> scale(part.rows, 0.0f), shift(part.rows, 0.0f);
    if (part.name == "q") {  // one number a head
      const size_t width = model->shape.head_width;
      const std::vector<float> heads = arrays.floats(linear.site + ".logit", part.rows / width);
      for (size_t n = 0; n < part.rows; n++) scale[n] = heads[n / width];
    } else if (factors.scale) {
      scale = arrays.floats(linear.site + "." + factors.scale, part.rows);
    }
    if (factors.shift) shift = arrays.floats(linear.site + "." + factors.shift, part.rows);
    if (factors.hidden) {
      const std::vector<float> hidden = arrays.floats(linear.site + "." + factors.hidden, columns);
      out->factor = Aligned<float>(padded(columns, kLanes));
      for (size_t c = 0; c < columns; c++) out->factor[c] = 1 + hidden[c];
    }
    for (size_t n = 0; n < part.rows; n++) {
      const size_t at = part.first + n;
      out->scale[at] = matrix.scale()[at] * (1 + scale[n]);
      out->bias[at] = linear.bias[at] * (1 + scale[n]) + shift[n];
      out->b_scale[at] = b.scale[n] * (1 + scale[n]);
      const int8_t* row = b.values + n * shape.rank;
      int8_t* to = &out->b[at / kLanes * rank * kLanes + at % kLanes * 4];
      for (size_t r = 0; r < shape.rank; r += 4) std::memcpy(to + r * kLanes, row + r, std::min<size_t>(4, shape.rank - r));
      for (size_t r = 0; r < shape.rank; r++) low |= row[r] != 0;
      out->part_of_block[at / kLanes] = static_cast<uint8_t>(p);
    }
  }
  out->finish = linear.bare;  // where the task changes nothing, all tasks read the same numbers
  const auto changed = [&](const Aligned<float>& own, const float* base) {
    return !std::equal(own.data(), own.data() + rows, base);
  };
  if (changed(out->scale, linear.bare.scale) || changed(out->bias, linear.bare.bias)) {
    out->finish.scale = out->scale.data();
    out->finish.bias = out->bias.data();
  } else {
    out->scale = {};
    out->bias = {};
  }
  if (low) {
    out->finish.low = out->b.data();
    out->finish.low_scale = out->b_scale.data();
    out->finish.part_of_block = out->part_of_block.data();
    out->finish.rank = rank;
  }
  out->reduce.scale = out->a.scale().data();
  out->reduce.bias = out->no_bias.data();
  fitted_[linear.id] = std::move(out);
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
  no_bias_ = Aligned<float>(own_rows.blocks() * kLanes);
  own_scores.scale = own_rows.scale().data();
  own_scores.bias = no_bias_.data();

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
  size_t sum = own_rows.bytes() + source_rows.bytes() + tokens.bytes() + score_bias_.bytes() + 4 * (outside.size() + row_of_.size());
  for (const auto& one : fitted_)
    if (one)
      sum += one->a.bytes() + one->b.bytes() + one->b_scale.bytes() +
             one->scale.bytes() + one->bias.bytes() + one->factor.bytes() + one->no_bias.bytes();
  for (const auto& one : memory) sum += 4 * (one.keys.size() + one.values.size());
  return sum;
}

}  // namespace edgeseq
