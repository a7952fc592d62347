// From the decoder's hidden states to scores of all symbols: of the vocabulary alone, with a pointer into the
// source (edgeseq_core/model/output.py), or by bands of tokens (edgeseq_core/model/bands.py).
#include <cmath>

#include "forward.h"

namespace edgeseq {
namespace {

constexpr float kLeast = 1e-30f;  // a copy probability under it counts as this much

// log(1 + e^x); minus it is the logarithm of the sigmoid of -x.
float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

// log(e^a + e^b).
float joined(float a, float b) { return b + softplus(a - b); }

float log_total(const Kernels& kernels, const float* scores, size_t count) {
  return kernels.log_total(scores, count, kernels.best(scores, count).value, 1);
}

}  // namespace

// Scores of all symbols: of the table, with the task's biases, then what is the task's own.
void Forward::score(const std::vector<Place>& places, size_t at) {
  const size_t stride = space_.logits_stride;
  quantize_norm(model_.decoder_gain);
  space_.logits.reserve(rows_ * stride);
  for (size_t t = 0; t < tasks_.size(); t++) finish_[t] = &tasks_[t]->scores;
  whole(model_.table, finish_, space_.logits.data(), stride);
  if (!model_.tails.empty()) score_tails();
  for (const Segment& segment : segments_) {
    const Calibration& task = *tasks_[segment.task];
    const size_t rows = segment.end - segment.first, own = task.own_rows.blocks() * kLanes;
    const Finish* finish = &task.own_scores;
    space_.u.reserve(rows * own);
    kernels_.project({task.own_rows.view(), 0, task.own_rows.blocks(),
                      &space_.codes[segment.first * space_.codes_stride], space_.codes_stride,
                      &space_.x_scale[segment.first], rows, &finish, zeros_.data(), nullptr,
                      space_.u.data(), own},
                     Mode::store);
    for (size_t row = 0; row < rows; row++)
      own_scores(&space_.logits[(segment.first + row) * stride], &space_.u[row * own], task);
  }
  if (model_.shape.copies) copy(places, at);
  if (!model_.tails.empty()) join_bands();
}

// A symbol of its own scores as the mean of its bytes do, by the base; then own rows add theirs.
void Forward::own_scores(float* logits, const float* own, const Calibration& task) {
  const size_t known = model_.shape.vocabulary;
  for (size_t s = 0; s < task.shape.symbols.size(); s++) {
    float sum = 0;
    for (uint32_t byte : task.shape.symbols[s]) sum += logits[byte] - task.scores.bias[byte];
    logits[known + s] = sum / static_cast<float>(task.shape.symbols[s].size()) + task.symbol_bias[s];
  }
  for (size_t i = 0; i < task.shape.rows.size(); i++) logits[task.shape.rows[i]] += own[i];
}

// --- the pointer ----------------------------------------------------------------------------------------

void Forward::read_copyable(const std::vector<Source>& sources, Memory* memory) {
  const Pointer& pointer = model_.pointer;
  const size_t width = pointer.width;
  linear(pointer.query_gate_key, pointer.key_block(), pointer.key_block() + width / kLanes, Mode::store,
         space_.wide.data(), width);
  float* key = space_.wide.data();
  for (size_t s = 0; s < sources.size(); s++) {
    const std::vector<uint32_t>& stand_for = sources[s].symbols;
    Copyable& into = memory[s].copyable;
    into.keys.reserve(stand_for.size() * width);
    into.symbols.clear();
    into.which.clear();
    for (size_t at = 0; at < stand_for.size(); at++, key += width) {
      kernels_.turn(key, 1, width, &pointer.cosine[at * width / 4], &pointer.sine[at * width / 4]);
      std::copy_n(key, width, &into.keys[at * width]);
      const auto known = std::find(into.symbols.begin(), into.symbols.end(), stand_for[at]);
      into.which.push_back(static_cast<size_t>(known - into.symbols.begin()));
      if (known == into.symbols.end()) into.symbols.push_back(stand_for[at]);
    }
  }
}

// Makes scores log-probabilities, p = (1 - g) p_vocabulary + g p_copy; the codes are the hidden states'.
void Forward::copy(const std::vector<Place>& places, size_t at) {
  const Pointer& pointer = model_.pointer;
  const size_t width = pointer.width, stride = width + kLanes;
  linear(pointer.query_gate_key, 0, pointer.key_block(), Mode::store, space_.wide.data(), stride);
  for (size_t row = 0; row < rows_; row++) {
    float *query = &space_.wide[row * stride], *logits = &space_.logits[row * space_.logits_stride];
    const float gate = query[width];
    const Copyable& source = places[row].memory->copyable;
    const size_t count = source.which.size(), symbols = tasks_[task_[row]]->symbols();
    kernels_.turn(query, 1, width, &pointer.cosine[at * width / 4], &pointer.sine[at * width / 4]);
    space_.scores.reserve(padded(count, kLanes));
    kernels_.point({query, 1, stride, 1, 1, width, source.keys.data(), nullptr, width, 0, count,
                    &pointer.nearness[model_.shape.max_tokens - at], nullptr, space_.scores.data(), 0});
    space_.shares.assign(source.symbols.size(), 0.0f);
    for (size_t i = 0; i < count; i++) space_.shares[source.which[i]] += space_.scores[i];

    const float down = log_total(kernels_, logits, symbols) + softplus(gate);
    for (size_t symbol = 0; symbol < symbols; symbol++) logits[symbol] -= down;
    for (size_t i = 0; i < source.symbols.size(); i++) {
      const float copied = std::log(std::max(space_.shares[i], kLeast)) - softplus(-gate);
      float& score = logits[source.symbols[i]];
      score += softplus(copied - score);
    }
  }
}

// --- bands ----------------------------------------------------------------------------------------------

// How likely each tail is (left in `space.wide`), and the scores of its tokens after those of the first band; the
// codes are the hidden states', before and after.
void Forward::score_tails() {
  const size_t narrow = model_.deepest();
  linear(model_.reach, 0, model_.reach.matrix->blocks(), Mode::store, space_.wide.data(),
         model_.reach.matrix->blocks() * kLanes);
  for (size_t t = 0; t < model_.tails.size(); t++) {
    const Tail& tail = model_.tails[t];
    quantize_norm(model_.decoder_gain, tail.factors.data());
    std::fill(finish_.begin(), finish_.end(), &tail.narrowed);
    whole(tail.narrow, finish_, space_.mixed.data(), narrow);
    quantize_rows(space_.mixed.data(), narrow, tail.narrow.rows());
    for (size_t task = 0; task < tasks_.size(); task++) finish_[task] = &tasks_[task]->tail_scores[t];
    whole(tail.rows, finish_, &space_.logits[tail.first], space_.logits_stride);
  }
  quantize_norm(model_.decoder_gain);
}

// Makes scores log-probabilities: first band, tails and a task's own symbols share one softmax, and a token of a
// tail is as likely as its tail times its share in it.
void Forward::join_bands() {
  const size_t first = model_.table.rows(), known = model_.shape.vocabulary, tails = model_.tails.size();
  const size_t stride = model_.reach.matrix->blocks() * kLanes;
  for (size_t row = 0; row < rows_; row++) {
    float* logits = &space_.logits[row * space_.logits_stride];
    const float* reach = &space_.wide[row * stride];
    const size_t own = tasks_[task_[row]]->symbols() - known;
    float all = joined(log_total(kernels_, logits, first), log_total(kernels_, reach, tails));
    if (own) all = joined(all, log_total(kernels_, logits + known, own));
    for (size_t v = 0; v < first; v++) logits[v] -= all;
    for (size_t v = known; v < known + own; v++) logits[v] -= all;
    for (size_t t = 0; t < tails; t++) {
      float* of_tail = logits + model_.tails[t].first;
      const size_t count = model_.tails[t].rows.rows();
      const float down = log_total(kernels_, of_tail, count) + all - reach[t];
      for (size_t v = 0; v < count; v++) of_tail[v] -= down;
    }
  }
}

}  // namespace edgeseq
