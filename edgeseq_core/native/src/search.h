// Answers for a batch: greedy ones, or the best few of a beam, and teacher-forced scores.
//
// The same search as edgeseq_core/model/search.py, in one call: a row of width n holds n places of the batch,
// and places of rows that have stopped leave it.
#pragma once

#include <functional>
#include <mutex>

#include "forward.h"

namespace edgeseq {

struct Request {
  std::vector<uint32_t> source;  // tokens, EOS included
  std::shared_ptr<const Calibration> task;
  size_t width = 1;
  bool constrained = false;
  std::vector<uint32_t> own = {};  // 1 + the own row of each token of the source, 0: none; empty: none at all
  std::vector<uint32_t> symbols = {};  // of the target that each token stands for, where the base copies
};

enum class Stop { none, end, length, deadline, cancelled };

struct Hypothesis {
  std::vector<uint32_t> tokens;  // without EOS
  float log_probability;
};

struct Found {
  std::vector<Hypothesis> hypotheses;  // best first
  Stop stop = Stop::none;
};

struct Scored {
  double loss;
  size_t tokens;
  bool exact;
};

// Asked before each token with the rows that go on; fills in those that have to stop.  May be empty.
using Ask = std::function<void(const std::vector<size_t>& rows, std::vector<Stop>& stops)>;

struct Limits {
  size_t max_tokens;
  float temperature;
  Ask ask;
};

class Engine {
 public:
  Engine(std::shared_ptr<const Model> model, const Kernels& kernels) : model(std::move(model)), kernels(kernels) {}

  std::vector<Found> generate(const std::vector<Request>&, const Limits&, size_t threads);
  // Log-probabilities at temperature 1 of each wanted token (EOS included) after those before it.
  std::vector<Scored> score(const std::vector<Request>&, const std::vector<std::vector<uint32_t>>& wanted,
                            size_t threads);
  // Scores of each next token, teacher-forced: [tokens][symbols] a request.
  std::vector<std::vector<float>> logits(const std::vector<Request>&,
                                         const std::vector<std::vector<uint32_t>>& wanted);
  // The greatest value of each dimension after the lowest `layers` layers of the bare base.
  std::vector<std::vector<float>> features(const std::vector<std::vector<uint32_t>>& sources, size_t layers);

  const std::shared_ptr<const Model> model;
  const Kernels& kernels;

 private:
  class Borrowed;  // a workspace for as long as one thread needs it

  // Makes what no source changes of a task, once.
  void remember(const Calibration& task);
  void split(const std::vector<Request>&, size_t threads,
             const std::function<void(const std::vector<size_t>&, Workspace&)>& work);

  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace edgeseq
