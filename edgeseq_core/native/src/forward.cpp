#include "forward.h"

#include <cmath>

namespace edgeseq {
namespace {

// Bytes from a row of codes to the next: rows a power of two apart would share a few lines of the cache.
size_t code_stride(size_t width) { return padded(width, kDepth) + kDepth; }

// The heads of the `at`-th of `count` keys or values, to where those of each head lie together.
void put(const float* from, size_t heads, size_t width, size_t count, size_t at, float* to) {
  for (size_t head = 0; head < heads; head++) std::copy_n(from + head * width, width, to + (head * count + at) * width);
}

}  // namespace

// --- memory of what was decoded -------------------------------------------------------------------------

void Caches::reserve(const Model& model, size_t places, size_t tokens) {
  tokens_ = padded(tokens, kLanes);
  starts_.clear();
  widths_.clear();
  each_ = 0;
  for (const DecoderLayer& layer : model.decoder) {
    starts_.push_back(each_);
    widths_.push_back(layer.self.key_width);
    each_ += 2 * layer.self.key_width * tokens_;
  }
  data_.reserve(places * each_);
}

void Caches::copy(const Model& model, size_t from, size_t to, size_t length) {
  for (size_t l = 0; l < model.decoder.size(); l++) {
    const size_t width = model.shape.head_width;
    for (size_t head = 0; head < 2 * widths_[l]; head += width)  // values follow keys
      std::copy_n(keys(from, l) + head * tokens_, length * width, keys(to, l) + head * tokens_);
  }
}

// --- batches --------------------------------------------------------------------------------------------

Forward::Forward(const Model& model, const Kernels& kernels, Workspace& space,
                 std::vector<const Calibration*> tasks)
    : model_(model), kernels_(kernels), space_(space), tasks_(std::move(tasks)), finish_(tasks_.size()) {
  size_t most = model.shape.vocabulary;
  for (const Calibration* task : tasks_)
    if (task) most = std::max(most, task->symbols());
  space_.logits_stride = padded(most, kLanes) + kLanes;  // a tail begins anywhere: its last block reaches further
}

size_t Forward::symbols(uint16_t task) const {
  return tasks_[task] ? tasks_[task]->symbols() : model_.shape.vocabulary;
}

void Forward::begin(size_t rows) {
  rows_ = rows;
  zeros_.resize(std::max(rows, zeros_.size()));
  space_.x.reserve(rows * model_.shape.d_model);
  space_.wide.reserve(rows * (model_.widest() + kLanes));
  space_.mixed.reserve(rows * model_.deepest());
  space_.row.reserve(model_.deepest());
  space_.x_scale.reserve(rows);
  space_.codes.reserve((rows + kRowsAhead) * code_stride(model_.deepest()));
}

void Forward::set_tasks(const std::vector<uint16_t>& of_row) {
  task_ = of_row;
  segments_.clear();
  for (size_t row = 0; row < rows_; row++) {
    if (segments_.empty() || segments_.back().task != task_[row])
      segments_.push_back({task_[row], row, row});
    segments_.back().end = row + 1;
  }
}

// y += factor * the embedding of a token of the base.
void Forward::look_up(uint32_t token, float factor, float* y) {
  const auto tail = std::find_if(model_.tails.begin(), model_.tails.end(), [=](const Tail& t) { return t.has(token); });
  if (tail == model_.tails.end()) return model_.table.add_row(token, factor, y);
  const size_t row = token - tail->first;  // whose values are codes already
  const float scale = tail->rows.scale()[row] * factor;
  const Finish* finish = &tail->widened;
  tail->rows.read_codes(row, kernels_.zero, space_.codes.data());
  kernels_.project({tail->wide.view(), 0, tail->wide.blocks(), space_.codes.data(), code_stride(tail->rows.columns()),
                    &scale, 1, &finish, zeros_.data(), nullptr, y, 0},
                   Mode::add);
}

// y = embedding of a symbol times sqrt(d), plus the task vector.
void Forward::embed(const Calibration& task, uint32_t token, float* y) {
  const size_t d = model_.shape.d_model, known = model_.shape.vocabulary;
  std::fill_n(y, d, 0.0f);
  if (token < known) {
    look_up(token, 1, y);
  } else {  // the mean of its bytes
    const auto& bytes = task.shape.symbols[token - known];
    for (uint32_t byte : bytes) look_up(byte, 1.0f / static_cast<float>(bytes.size()), y);
  }
  task.add_own_row(token, y);
  const float root = std::sqrt(static_cast<float>(d));
  for (size_t c = 0; c < d; c++) y[c] = y[c] * root + task.vector[c];
}

// --- parts of a layer -----------------------------------------------------------------------------------

void Forward::quantize_norm(const Aligned<float>& gain, const float* factor) {
  const size_t d = model_.shape.d_model;
  space_.codes_stride = code_stride(d);
  for (size_t row = 0; row < rows_; row++)
    space_.x_scale[row] = kernels_.normed(&space_.x[row * d], gain.data(), factor, d, space_.row.data(),
                                          &space_.codes[row * space_.codes_stride]);
}

void Forward::quantize_rows(const float* from, size_t stride, size_t width, const Linear* factors) {
  space_.codes_stride = code_stride(width);
  for (size_t row = 0; row < rows_; row++) {
    const Calibration* task = tasks_[task_[row]];
    const Fitted* fitted = factors && task ? task->at(*factors) : nullptr;
    const float* factor = fitted && fitted->factor.size() ? fitted->factor.data() : nullptr;
    space_.x_scale[row] = kernels_.quantize(from + row * stride, factor, padded(width, kLanes),
                                            &space_.codes[row * space_.codes_stride]);
  }
}

// y = a matrix that no task changes, of the quantized rows; `finish` is one a task.
void Forward::whole(const Matrix& matrix, const std::vector<const Finish*>& finish, float* y, size_t stride) {
  kernels_.project({matrix.view(), 0, matrix.blocks(), space_.codes.data(), space_.codes_stride,
                    space_.x_scale.data(), rows_, finish.data(), task_.data(), nullptr, y, stride},
                   Mode::store);
}

// y = (or += ...) blocks [first, end) of a linear map of the quantized rows; `then` is read next.
void Forward::linear(const Linear& linear, size_t first, size_t end, Mode mode, float* y, size_t stride,
                     const Matrix* then) {
  bool low = false;
  for (size_t t = 0; t < tasks_.size(); t++) {
    const Fitted* fitted = tasks_[t] ? tasks_[t]->at(linear) : nullptr;
    finish_[t] = fitted ? &fitted->finish : &linear.bare;
    low = low || finish_[t]->low;
  }
  LowRank low_rank{};
  if (low) low_rank = reduce(linear, first, end);
  kernels_.project({linear.matrix->view(), first, end, space_.codes.data(), space_.codes_stride,
                    space_.x_scale.data(), rows_, finish_.data(), task_.data(),
                    low ? &low_rank : nullptr, y, stride, then ? then->view().values : nullptr,
                    then ? then->weight_bytes() : 0},
                   mode);
}

// Codes of u = A x of each row whose task has a low-rank part here, for the parts in blocks [first, end).
LowRank Forward::reduce(const Linear& linear, size_t first, size_t end) {
  size_t rank = 0;
  for (const Calibration* task : tasks_)
    if (task && task->at(linear)) rank = std::max(rank, task->at(linear)->finish.rank);  // 0: no part
  const size_t parts = linear.parts.size(), width = padded(parts * rank, kLanes);
  const LowRank out{space_.u_codes.reserve(rows_ * parts * rank), parts * rank, space_.u_scale.reserve(rows_ * parts), parts};
  space_.u.reserve(rows_ * width + kLanes);
  const size_t from = linear.part_of_block[first], to = linear.part_of_block[end - 1] + 1u;
  const auto fitted_of = [&](size_t segment) {
    const Calibration* task = segment < segments_.size() ? tasks_[segments_[segment].task] : nullptr;
    const Fitted* fitted = task ? task->at(linear) : nullptr;
    return fitted && fitted->finish.low ? fitted : nullptr;
  };
  for (size_t s = 0; s < segments_.size(); s++) {
    const Fitted* fitted = fitted_of(s);
    if (const Fitted* next = fitted_of(s + 1)) next->a.prefetch(from * next->finish.rank, to * next->finish.rank);
    if (!fitted) continue;
    const Segment& segment = segments_[s];
    const size_t own = fitted->finish.rank, a_first = from * own / kLanes, a_end = padded(to * own, kLanes) / kLanes;
    const Finish* reduce = &fitted->reduce;
    kernels_.project({fitted->a.view(), a_first, a_end,
                      &space_.codes[segment.first * space_.codes_stride], space_.codes_stride,
                      &space_.x_scale[segment.first], segment.end - segment.first, &reduce, zeros_.data(),
                      nullptr, &space_.u[segment.first * width + a_first * kLanes], width},
                     Mode::store);
    kernels_.quantize_few({&space_.u[segment.first * width + from * own], width, segment.end - segment.first, to - from,
                           own, &space_.u_codes[segment.first * out.stride + from * own], out.stride,
                           &space_.u_scale[segment.first * parts + from], parts});
  }
  return out;
}

void Forward::feed(const FfnSite& ffn, const Matrix* then) {
  const size_t d = model_.shape.d_model, wide = padded(ffn.width, kLanes) + kLanes;
  quantize_norm(ffn.gain);
  linear(ffn.up, 0, ffn.up.matrix->blocks(), Mode::relu, space_.wide.data(), wide,
         ffn.down.matrix);
  quantize_rows(space_.wide.data(), wide, ffn.width, &ffn.down);
  linear(ffn.down, 0, d / kLanes, Mode::add, space_.x.data(), d, then);
}

// --- encoder --------------------------------------------------------------------------------------------

void Forward::encode(const std::vector<Source>& sources, size_t layers) {
  const size_t d = model_.shape.d_model;
  const float root = std::sqrt(static_cast<float>(d));
  std::vector<size_t> lengths;
  std::vector<uint16_t> of_row;
  size_t rows = 0;
  for (const Source& source : sources) {
    lengths.push_back(source.tokens.size());
    of_row.insert(of_row.end(), source.tokens.size(), source.task);
    rows += source.tokens.size();
  }
  begin(rows);
  set_tasks(of_row);
  float* x = space_.x.data();
  for (const Source& source : sources)
    for (size_t at = 0; at < source.tokens.size(); at++, x += d) {
      std::fill_n(x, d, 0.0f);
      look_up(source.tokens[at], root, x);
      if (!source.own.empty() && source.own[at])
        tasks_[source.task]->source_rows.add_row(source.own[at] - 1, root, x);
    }
  for (size_t l = 0; l < layers; l++) {
    const EncoderLayer& layer = model_.encoder[l];
    self_attention(layer.self, lengths, layer.ffn.up.matrix);
    feed(layer.ffn, l + 1 < layers ? model_.encoder[l + 1].self.qkv.matrix : nullptr);
  }
}

void Forward::self_attention(const AttentionSite& site, const std::vector<size_t>& lengths, const Matrix* then) {
  const size_t d = model_.shape.d_model, width = model_.shape.head_width, quarter = model_.head_quarter();
  const size_t wide = site.query_width + 2 * site.key_width, stride = wide + kLanes;  // else few lines of the cache
  quantize_norm(site.gain);
  linear(site.qkv, 0, wide / kLanes, Mode::store, space_.wide.data(), stride, site.out.matrix);
  size_t row = 0;
  for (size_t length : lengths) {
    space_.scores.reserve(Attention::scratch_size(site.heads, width, length));
    float* first = &space_.wide[row * stride];
    for (size_t at = 0; at < length; at++) {
      float* q = first + at * stride;
      const float *cosine = &model_.cosine[at * quarter], *sine = &model_.sine[at * quarter];
      kernels_.turn(q, site.heads + site.kv_heads, width, cosine, sine);
    }
    const float* keys = first + site.query_width;
    kernels_.attend({first, length, stride, site.heads, site.kv_heads, width, keys, keys + site.key_width, stride,
                     width, length, nullptr, space_.scores.data(), &space_.mixed[row * site.query_width],
                     site.query_width});
    row += length;
  }
  quantize_rows(space_.mixed.data(), site.query_width, site.query_width);
  linear(site.out, 0, d / kLanes, Mode::add, space_.x.data(), d, then);
}

void Forward::memorize(const std::vector<Source>& sources, Memory* memory) {
  const size_t width = model_.shape.head_width, quarter = model_.head_quarter();
  quantize_norm(model_.encoder_gain);
  for (size_t l = 0; l < model_.decoder.size(); l++) {
    const AttentionSite& site = model_.decoder[l].cross;
    const size_t k = site.key_width, stride = 2 * k;
    linear(site.qkv, site.query_width / kLanes, (site.query_width + stride) / kLanes, Mode::store,
           space_.wide.data(), stride);
    size_t row = 0;
    for (size_t s = 0; s < sources.size(); s++) {
      const size_t length = sources[s].tokens.size();
      const Calibration& task = *tasks_[task_[row]];
      const TaskMemory& of_task = task.memory[l];
      const size_t tokens = task.shape.task_tokens;
      Memory& into = memory[s];
      into.count = tokens + length;
      into.keys.resize(model_.decoder.size());
      into.values.resize(model_.decoder.size());
      into.keys[l].reserve(into.count * k);
      into.values[l].reserve(into.count * k);
      float *keys = into.keys[l].data(), *values = into.values[l].data();
      for (size_t at = 0; at < tokens; at++) {
        put(&of_task.keys[at * k], site.kv_heads, width, into.count, at, keys);
        put(&of_task.values[at * k], site.kv_heads, width, into.count, at, values);
      }
      for (size_t at = 0; at < length; at++, row++) {
        float* kv = &space_.wide[row * stride];
        kernels_.turn(kv, site.kv_heads, width, &model_.cosine[at * quarter], &model_.sine[at * quarter]);
        put(kv, site.kv_heads, width, into.count, tokens + at, keys);
        put(kv + k, site.kv_heads, width, into.count, tokens + at, values);
      }
      if (!l)
        into.added = task.has_task_scores ? Aligned<float>(task.shape.task_scores, padded(into.count, kLanes))
                                          : Aligned<float>();
    }
  }
  if (model_.shape.copies) read_copyable(sources, memory);
}

void Forward::remember(const Calibration& task) {
  const size_t d = model_.shape.d_model;
  begin(task.shape.task_tokens);
  set_tasks(std::vector<uint16_t>(rows_, 0));
  std::fill_n(space_.x.data(), rows_ * d, 0.0f);
  for (size_t row = 0; row < rows_; row++) task.tokens.add_row(row, 1, &space_.x[row * d]);
  quantize_rows(space_.x.data(), d, d);
  for (const DecoderLayer& layer : model_.decoder) {
    const AttentionSite& site = layer.cross;
    const size_t k = site.key_width, stride = 2 * k;
    linear(site.qkv, site.query_width / kLanes, (site.query_width + stride) / kLanes, Mode::store,
           space_.wide.data(), stride);
    TaskMemory made;
    for (size_t row = 0; row < rows_; row++) {
      const float* kv = &space_.wide[row * stride];
      made.keys.insert(made.keys.end(), kv, kv + k);
      made.values.insert(made.values.end(), kv + k, kv + stride);
    }
    task.memory.push_back(std::move(made));
  }
}

// --- decoder --------------------------------------------------------------------------------------------

float* Forward::step(const std::vector<Place>& places, size_t at) {
  const size_t d = model_.shape.d_model, width = model_.shape.head_width;
  const float *cosine = &model_.cosine[at * model_.head_quarter()],
              *sine = &model_.sine[at * model_.head_quarter()];
  begin(places.size());
  task_.resize(rows_);
  for (size_t row = 0; row < rows_; row++) {
    task_[row] = places[row].task;
    embed(*tasks_[places[row].task], places[row].token, &space_.x[row * d]);
  }
  set_tasks(task_);
  const auto mix = [&](const AttentionSite& site, size_t row, size_t q_stride, const float* keys,
                       const float* values, size_t room, size_t count, const float* added) {
    space_.scores.reserve(Attention::scratch_size(site.heads, width, count));
    kernels_.attend({&space_.wide[row * q_stride], 1, q_stride, site.heads, site.kv_heads, width, keys,
                     values, width, room * width, count, added, space_.scores.data(),
                     &space_.mixed[row * site.query_width], site.query_width});
  };
  for (size_t l = 0; l < model_.decoder.size(); l++) {
    const DecoderLayer& layer = model_.decoder[l];
    const Matrix *crossing = layer.cross.qkv.matrix,
                 *after = l + 1 < model_.decoder.size() ? model_.decoder[l + 1].self.qkv.matrix : &model_.table;
    {
      const AttentionSite& site = layer.self;
      const size_t q = site.query_width, k = site.key_width, stride = q + 2 * k, room = space_.caches.tokens();
      quantize_norm(site.gain);
      linear(site.qkv, 0, stride / kLanes, Mode::store, space_.wide.data(), stride, site.out.matrix);
      for (size_t row = 0; row < rows_; row++) {
        float *made = &space_.wide[row * stride], *keys = space_.caches.keys(places[row].cache, l),
              *values = space_.caches.values(places[row].cache, l);
        kernels_.turn(made, site.heads + site.kv_heads, width, cosine, sine);
        put(made + q, site.kv_heads, width, room, at, keys);
        put(made + q + k, site.kv_heads, width, room, at, values);
        mix(site, row, stride, keys, values, room, at + 1, nullptr);
      }
      quantize_rows(space_.mixed.data(), q, q);
      linear(site.out, 0, d / kLanes, Mode::add, space_.x.data(), d, layer.feeds ? layer.ffn1.up.matrix : crossing);
    }
    if (layer.feeds) feed(layer.ffn1, crossing);
    {
      const AttentionSite& site = layer.cross;
      const size_t q = site.query_width;
      quantize_norm(site.gain);
      linear(site.qkv, 0, q / kLanes, Mode::store, space_.wide.data(), q, site.out.matrix);
      for (size_t row = 0; row < rows_; row++) {
        const Memory& memory = *places[row].memory;
        kernels_.turn(&space_.wide[row * q], site.heads, width, cosine, sine);
        mix(site, row, q, memory.keys[l].data(), memory.values[l].data(), memory.count, memory.count,
            memory.added.size() ? memory.added.data() : nullptr);
      }
      quantize_rows(space_.mixed.data(), q, q);
      linear(site.out, 0, d / kLanes, Mode::add, space_.x.data(), d, layer.feeds ? layer.ffn2.up.matrix : after);
    }
    if (layer.feeds) feed(layer.ffn2, after);
  }
  score(places, at);
  return space_.logits.data();
}

}  // namespace edgeseq
