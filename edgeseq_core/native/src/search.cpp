#include "search.h"

#include <cmath>
#include <exception>
#include <numeric>
#include <thread>

namespace edgeseq {
namespace {

constexpr uint32_t kPad = 0, kBos = 1, kEos = 2;
constexpr double kLengthPower = 0.6;     // Wu et al. 2016, equation 14
constexpr size_t kRowsTogether = 128;   // of an encoder's batch: as many as stay in a core's cache

// Rows of one thread, their encoded sources and the distinct tasks.
class Batch {
 public:
  Batch(const Model& model, const Kernels& kernels, Workspace& space, const std::vector<Request>& requests,
        const std::vector<size_t>& rows)
      : requests(requests), rows(rows), task_(rows.size()), memories_(space.memories) {
    memories_.resize(std::max(memories_.size(), rows.size()));
    std::vector<const Calibration*> tasks;
    for (size_t i = 0; i < rows.size(); i++) {  // sorted by task
      const Calibration* task = requests[rows[i]].task.get();
      if (tasks.empty() || tasks.back() != task) tasks.push_back(task);
      task_[i] = static_cast<uint16_t>(tasks.size() - 1);
    }
    forward = std::make_unique<Forward>(model, kernels, space, std::move(tasks));
    for (size_t i = 0; i < rows.size();) {
      size_t end = i, count = 0;
      std::vector<Source> sources;
      for (; end < rows.size(); end++) {
        const Request& request = requests[rows[end]];
        if (end > i && count + request.source.size() > kRowsTogether) break;
        count += request.source.size();
        sources.push_back({request.source, request.own, request.symbols, task_[end]});
      }
      forward->encode(sources, model.encoder.size());
      forward->memorize(sources, &memories_[i]);
      i = end;
    }
  }

  const Request& request(size_t i) const { return requests[rows[i]]; }
  Place place(size_t i, size_t cache) const { return {task_[i], &memories_[i], kBos, cache}; }
  uint16_t task(size_t i) const { return task_[i]; }

  const std::vector<Request>& requests;
  const std::vector<size_t>& rows;
  std::unique_ptr<Forward> forward;

 private:
  std::vector<uint16_t> task_;
  std::vector<Memory>& memories_;
};

struct Open {
  std::vector<uint32_t> tokens;
  float total = 0;
  size_t cache = 0;
};

struct Candidate {
  float total;
  size_t open;
  uint32_t symbol;
};

double merit(float log_probability, size_t tokens) {
  return log_probability / std::pow((6.0 + static_cast<double>(tokens)) / 6.0, kLengthPower);
}

// One row: what is open, and what has ended.
class Beam {
 public:
  Beam(size_t width, size_t first_cache, bool constrained) : width_(width), constrained_(constrained) {
    open.push_back({{}, 0, first_cache});
    for (size_t i = 1; i < width; i++) free_.push_back(first_cache + i);
  }

  std::vector<Open> open;
  Stop stop = Stop::none;

  // Adds the best continuations of open hypothesis `at`, given its scores.
  void consider(size_t at, float* logits, size_t symbols, const Calibration& task, float sharpness,
                const Kernels& kernels) {
    const Best best = kernels.best(logits, symbols);
    const float log_sum = kernels.log_total(logits, symbols, best.value, sharpness);
    if (constrained_)  // the probability stays that of all symbols
      for (size_t s = 0; s < symbols; s++) logits[s] += task.outside[s];
    const auto add = [&](Best found) {
      candidates_.push_back({open[at].total + (found.value * sharpness - log_sum), at, found.at});
    };
    if (width_ == 1) return add(constrained_ ? kernels.best(logits, symbols) : best);
    for (size_t i = 0; i < std::min(width_ + 1, symbols); i++) {  // one more: the best may be EOS
      const Best next = kernels.best(logits, symbols);
      add(next);
      logits[next.at] = -INFINITY;
    }
  }

  // Keeps the best of all that were considered.
  void advance(Caches& caches, const Model& model, size_t length) {
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.total > b.total; });
    std::vector<Open> next;
    std::vector<bool> taken(open.size());
    for (size_t rank = 0; rank < candidates_.size(); rank++) {
      const Candidate& one = candidates_[rank];
      if (one.total == -INFINITY) break;
      Open& from = open[one.open];
      if (one.symbol == kEos) {
        if (rank < width_) ended_.push_back({from.tokens, one.total});
      } else if (next.size() < width_) {
        next.push_back({from.tokens, one.total, from.cache});
        next.back().tokens.push_back(one.symbol);
        origins_.push_back(one.open);
      }
    }
    candidates_.clear();
    share_caches(next, caches, model, length);
    open = std::move(next);
    if (open.empty() || cannot_gain()) stop = Stop::end;
  }

  Found found() {
    if (ended_.empty()) {
      Found out{{}, stop == Stop::none ? Stop::length : stop};
      for (Open& one : open) out.hypotheses.push_back({std::move(one.tokens), one.total});
      return out;
    }
    std::stable_sort(ended_.begin(), ended_.end(), [](const Hypothesis& a, const Hypothesis& b) {
      return merit(a.log_probability, a.tokens.size()) > merit(b.log_probability, b.tokens.size());
    });
    if (ended_.size() > width_) ended_.resize(width_);
    return {std::move(ended_), stop == Stop::none ? Stop::end : stop};
  }

 private:
  // The first that goes on from a hypothesis takes over its cache; the others get copies.
  void share_caches(std::vector<Open>& next, Caches& caches, const Model& model, size_t length) {
    std::vector<bool> taken(open.size());
    for (size_t origin : origins_) taken[origin] = true;
    for (size_t i = 0; i < open.size(); i++)
      if (!taken[i]) free_.push_back(open[i].cache);
    std::fill(taken.begin(), taken.end(), false);
    for (size_t i = 0; i < next.size(); i++) {
      if (taken[origins_[i]]) {
        next[i].cache = free_.back();
        free_.pop_back();
        caches.copy(model, open[origins_[i]].cache, next[i].cache, length);
      }
      taken[origins_[i]] = true;
    }
    origins_.clear();
  }

  // Whether as many as wanted have ended, all better than the best open one is by now.
  bool cannot_gain() const {
    if (ended_.size() < width_) return false;
    if (width_ == 1) return true;
    std::vector<double> merits;
    for (const Hypothesis& one : ended_) merits.push_back(merit(one.log_probability, one.tokens.size()));
    std::nth_element(merits.begin(), merits.begin() + static_cast<long>(width_) - 1, merits.end(),
                     std::greater<>());
    return merit(open[0].total, open[0].tokens.size()) <= merits[width_ - 1];
  }

  size_t width_;
  bool constrained_;
  std::vector<size_t> free_, origins_;
  std::vector<Candidate> candidates_;
  std::vector<Hypothesis> ended_;
};

// Decodes all rows of a batch together until each has stopped.
void search(Batch& batch, const Model& model, const Kernels& kernels, Workspace& space, const Limits& limits,
            std::vector<Found>& out) {
  std::vector<Beam> beams;
  size_t caches = 0;
  for (size_t i = 0; i < batch.rows.size(); i++) {
    beams.emplace_back(batch.request(i).width, caches, batch.request(i).constrained);
    caches += batch.request(i).width;
  }
  const size_t most = std::min(limits.max_tokens, model.shape.max_tokens);
  space.caches.reserve(model, caches, most);
  std::vector<size_t> running, asked;
  std::vector<Place> places;
  std::vector<Stop> stops;
  for (size_t at = 0; at < most; at++) {
    running.clear();
    for (size_t i = 0; i < beams.size(); i++)
      if (beams[i].stop == Stop::none) running.push_back(i);
    if (limits.ask && !running.empty()) {
      asked.clear();
      for (size_t i : running) asked.push_back(batch.rows[i]);
      stops.assign(running.size(), Stop::none);
      limits.ask(asked, stops);
      for (size_t r = 0; r < running.size(); r++) beams[running[r]].stop = stops[r];
      running.erase(std::remove_if(running.begin(), running.end(),
                                   [&](size_t i) { return beams[i].stop != Stop::none; }),
                    running.end());
    }
    if (running.empty()) break;
    places.clear();
    for (size_t i : running)
      for (const Open& one : beams[i].open) {
        places.push_back(batch.place(i, one.cache));
        if (at) places.back().token = one.tokens.back();
      }
    float* logits = batch.forward->step(places, at);
    for (size_t i : running) {
      const Calibration& task = *batch.request(i).task;
      for (size_t o = 0; o < beams[i].open.size(); o++, logits += space.logits_stride)
        beams[i].consider(o, logits, task.symbols(), task, 1 / limits.temperature, kernels);
      beams[i].advance(space.caches, model, at + 1);
    }
  }
  for (size_t i = 0; i < beams.size(); i++) out[batch.rows[i]] = beams[i].found();
}

// Reads wanted tokens one after another; `see` gets the scores of each next one.
void force(Batch& batch, const Model& model, Workspace& space,
           const std::vector<std::vector<uint32_t>>& wanted,
           const std::function<void(size_t row, size_t at, const float* logits)>& see) {
  size_t longest = 0;
  for (size_t row : batch.rows) longest = std::max(longest, wanted[row].size());
  space.caches.reserve(model, batch.rows.size(), longest);
  std::vector<Place> places;
  std::vector<size_t> of_place;
  for (size_t at = 0; at < longest; at++) {
    places.clear();
    of_place.clear();
    for (size_t i = 0; i < batch.rows.size(); i++) {
      const auto& tokens = wanted[batch.rows[i]];
      if (at >= tokens.size()) continue;
      places.push_back(batch.place(i, i));
      if (at) places.back().token = tokens[at - 1];
      of_place.push_back(batch.rows[i]);
    }
    const float* logits = batch.forward->step(places, at);
    for (size_t row : of_place) {
      see(row, at, logits);
      logits += space.logits_stride;
    }
  }
}

}  // namespace

class Engine::Borrowed {
 public:
  explicit Borrowed(Engine& from) : from_(from) {
    const std::lock_guard<std::mutex> lock(from_.mutex_);
    if (from_.idle_.empty()) {
      space_ = std::make_unique<Workspace>();
    } else {
      space_ = std::move(from_.idle_.back());
      from_.idle_.pop_back();
    }
  }
  ~Borrowed() {
    const std::lock_guard<std::mutex> lock(from_.mutex_);
    from_.idle_.push_back(std::move(space_));
  }
  Workspace& operator*() { return *space_; }

 private:
  Engine& from_;
  std::unique_ptr<Workspace> space_;
};

// Rows sorted by task, cut into as many runs as there are threads.
void Engine::split(const std::vector<Request>& requests, size_t threads,
                   const std::function<void(const std::vector<size_t>&, Workspace&)>& work) {
  for (const Request& one : requests) remember(*one.task);
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return requests[a].task.get() < requests[b].task.get();
  });
  const size_t runs = std::max<size_t>(1, std::min(threads, order.size()));
  std::vector<std::exception_ptr> failed(runs);
  const auto run = [&](size_t at) {
    try {
      const std::vector<size_t> rows(order.begin() + static_cast<long>(order.size() * at / runs),
                                     order.begin() + static_cast<long>(order.size() * (at + 1) / runs));
      Borrowed space(*this);
      if (!rows.empty()) work(rows, *space);
    } catch (...) {
      failed[at] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (size_t at = 1; at < runs; at++) others.emplace_back(run, at);
  run(0);
  for (std::thread& one : others) one.join();
  for (const std::exception_ptr& one : failed)
    if (one) std::rethrow_exception(one);
}

std::vector<Found> Engine::generate(const std::vector<Request>& requests, const Limits& limits,
                                    size_t threads) {
  std::vector<Found> out(requests.size());
  split(requests, threads, [&](const std::vector<size_t>& rows, Workspace& space) {
    Batch batch(*model, kernels, space, requests, rows);
    search(batch, *model, kernels, space, limits, out);
  });
  return out;
}

std::vector<Scored> Engine::score(const std::vector<Request>& requests,
                                  const std::vector<std::vector<uint32_t>>& wanted, size_t threads) {
  std::vector<Scored> out(requests.size());
  for (size_t i = 0; i < out.size(); i++) {
    const auto& tokens = wanted[i];
    const size_t real = tokens.size() - static_cast<size_t>(std::count(tokens.begin(), tokens.end(), kPad));
    out[i] = {0, real, true};
  }
  split(requests, threads, [&](const std::vector<size_t>& rows, Workspace& space) {
    Batch batch(*model, kernels, space, requests, rows);
    force(batch, *model, space, wanted, [&](size_t row, size_t at, const float* logits) {
      if (wanted[row][at] == kPad) return;
      const size_t symbols = requests[row].task->symbols();
      const Best best = kernels.best(logits, symbols);
      const float log_sum = kernels.log_total(logits, symbols, best.value, 1);
      out[row].loss += log_sum - logits[wanted[row][at]];
      out[row].exact = out[row].exact && best.at == wanted[row][at];
    });
  });
  return out;
}

std::vector<std::vector<float>> Engine::logits(const std::vector<Request>& requests,
                                               const std::vector<std::vector<uint32_t>>& wanted) {
  std::vector<std::vector<float>> out(requests.size());
  split(requests, 1, [&](const std::vector<size_t>& rows, Workspace& space) {
    Batch batch(*model, kernels, space, requests, rows);
    force(batch, *model, space, wanted, [&](size_t row, size_t, const float* logits) {
      out[row].insert(out[row].end(), logits, logits + requests[row].task->symbols());
    });
  });
  return out;
}

std::vector<std::vector<float>> Engine::features(const std::vector<std::vector<uint32_t>>& sources,
                                                 size_t layers) {
  const size_t d = model->shape.d_model;
  std::vector<std::vector<float>> out;
  Borrowed space(*this);
  Forward forward(*model, kernels, *space, {nullptr});
  const std::vector<uint32_t> none;
  for (const auto& source : sources) {
    forward.encode({{source, none, none, 0}}, std::min(layers, model->encoder.size()));
    std::vector<float> most((*space).x.data(), (*space).x.data() + d);
    for (size_t at = 1; at < source.size(); at++)
      for (size_t c = 0; c < d; c++) most[c] = std::max(most[c], (*space).x[at * d + c]);
    out.push_back(std::move(most));
  }
  return out;
}

void Engine::remember(const Calibration& task) {
  std::call_once(task.remembered, [&] {
    Borrowed space(*this);
    task.memory.clear();  // of an attempt that failed
    Forward(*model, kernels, *space, {&task}).remember(task);
  });
}

}  // namespace edgeseq
