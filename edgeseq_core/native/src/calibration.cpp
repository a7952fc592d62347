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

// Numbers of a part, as they are read.
struct Calibration::Scratch {
  explicit Scratch(size_t rows) : factor(rows), shift(rows), b_scale(rows) {}

  std::vector<float> factor, shift, b_scale;
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
  Scratch scratch(model->widest());
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
  for (Aligned<float>* numbers : {&out.b_scale, &out.scale, &out.bias}) *numbers = Aligned<float>(rows, &arena_);
  if (rank > shape.rank || rows > linear.rows()) {  // not all of it is written below
    out.b.clear();
    for (Aligned<float>* numbers : {&out.b_scale, &out.scale, &out.bias}) numbers->clear();
  }
  for (size_t p = 0; p < linear.parts.size(); p++) {
    const Part& part = linear.parts[p];
    const PartKeys& keys = linear.keys[p];
    out.a.put(p * rank, arrays.codes(keys.a, shape.rank, columns), shape.rank);
    arrays.floats(keys.a_scale, shape.rank, out.a.scale_from(p * rank));
    const int8_t* b = arrays.codes(keys.b, part.rows, shape.rank);
    arrays.floats(keys.b_scale, part.rows, scratch.b_scale.data());
    if (!keys.hidden.text.empty()) {
      out.factor = Aligned<float>(padded(columns, kLanes), &arena_);
      std::fill(out.factor.data() + columns, out.factor.data() + out.factor.size(), 0.0f);
      arrays.floats(keys.hidden, columns, out.factor.data());
      for (size_t c = 0; c < columns; c++) out.factor[c] = 1 + out.factor[c];
    }
    const size_t first = part.first;
    const float* factor = read_factor(part, keys, arrays, scratch.factor.data());
    const auto scale = [&](const float* x, float* to) {
      factor ? loops().scale(x, factor, part.rows, to) : static_cast<void>(std::copy_n(x, part.rows, to));
    };
    scale(matrix.scale().data() + first, &out.scale[first]);
    scale(linear.bias.data() + first, &out.bias[first]);
    scale(scratch.b_scale.data(), &out.b_scale[first]);
    if (!keys.shift.text.empty()) {
      arrays.floats(keys.shift, part.rows, scratch.shift.data());
      loops().shift(scratch.shift.data(), part.rows, &out.bias[first]);
    }
    loops().pack(b, part.rows, shape.rank, first, {rank / 4, matrix.blocks()}, out.b.data());
  }
  out.finish = linear.bare;  // where the task changes nothing, all tasks read the same numbers
  const auto same = [&](const Aligned<float>& own, const float* base) {
    return !std::memcmp(own.data(), base, own.bytes());
  };
  if (!same(out.scale, linear.bare.scale) || !same(out.bias, linear.bare.bias)) {
    out.finish.scale = out.scale.data();
    out.finish.bias = out.bias.data();
  }
  const Seen b = loops().add(out.b.data(), rows * rank, static_cast<int8_t>(zero_));
  if (b.least) no_symmetric_int8();
  if (b.any) {
    out.finish.low = out.b.data();
    out.finish.low_scale = out.b_scale.data();
    out.finish.part_of_block = linear.part_of_block.data();
    out.finish.rank = rank;
  }
  out.reduce.scale = out.a.scale().data();
  out.reduce.bias = zeros_.data();
}

// What scales a part's rows, into `out`; null where nothing does.
const float* Calibration::read_factor(const Part& part, const PartKeys& keys, Reader& arrays, float* out) const {
  if (keys.scale.text.empty()) return nullptr;
  if (!keys.by_head) {
    arrays.floats(keys.scale, part.rows, out);
    return out;
  }
  const size_t width = model->shape.head_width;
  const std::vector<float> heads = arrays.floats(keys.scale, part.rows / width);
  for (size_t head = 0; head < heads.size(); head++) std::fill_n(out + head * width, width, heads[head]);
  return out;
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
  for (const DecoderLayer& layer : model->decoder) sum += 8 * shape.task_tokens * layer.cross.key_width;  // `memory`
  return sum;
}

}  // namespace edgeseq
