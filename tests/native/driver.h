// What the C++ drivers read: files that drivers.py writes.
#pragma once

#include <fstream>
#include <iterator>
#include <sstream>

#include "safetensors.h"
#include "search.h"

namespace edgeseq {

inline std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class T>
std::vector<T> line(std::istream& in) {
  std::string text;
  std::getline(in, text);
  std::istringstream words(text);
  return {std::istream_iterator<T>(words), {}};
}

inline std::shared_ptr<Model> load_base(const std::string& path, const std::string& shape_path) {
  std::ifstream in(shape_path);
  const auto n = line<size_t>(in);
  Shape shape{n.at(0), n.at(1), n.at(2), n.at(3), n.at(4), n.at(5), n.at(6), {}, {}, {}, {}, n.at(7) != 0, {}, {}};
  for (auto* widths : {&shape.query_width, &shape.key_width, &shape.encoder_ffn, &shape.decoder_ffn,
                       &shape.tail_sizes, &shape.tail_widths})
    *widths = line<size_t>(in);
  const std::string bytes = contents(path);
  Tensors tensors(bytes);
  Reader read(std::move(tensors.arrays));
  return std::make_shared<Model>(shape, read);
}

// A calibration, whose numbers lie beside it.
inline std::shared_ptr<Calibration> load_task(Engine& engine, const std::string& path) {
  std::ifstream in(path + ".numbers");
  CalibrationShape shape;
  const auto n = line<size_t>(in);
  shape.rank = n.at(0), shape.encoder_layers = n.at(1), shape.task_tokens = n.at(2), shape.source_rows = n.at(3);
  shape.task_scores = line<float>(in);
  shape.rows = line<uint32_t>(in);
  shape.alphabet = line<uint32_t>(in);
  for (size_t symbols = n.at(4); symbols; symbols--) shape.symbols.push_back(line<uint32_t>(in));
  const std::string bytes = contents(path);
  Tensors tensors(bytes);
  if (Array* place = tensors.arrays.find("place")) place->taken = true;  // Python reads it
  Reader read(std::move(tensors.arrays));
  return std::make_shared<Calibration>(engine.model, std::move(shape), read, engine.kernels.zero);
}

// Rows for tasks, four lines each: task, width and whether constrained; source; its own rows; its symbols.
inline std::vector<Request> load_requests(const std::string& path,
                                          const std::vector<std::shared_ptr<const Calibration>>& tasks) {
  std::ifstream in(path);
  std::vector<Request> out;
  while (in.peek() != EOF) {
    const auto n = line<size_t>(in);
    Request request;
    request.task = tasks.at(n.at(0)), request.width = n.at(1), request.constrained = n.at(2) != 0;
    for (auto* numbers : {&request.source, &request.own, &request.symbols}) *numbers = line<uint32_t>(in);
    out.push_back(std::move(request));
  }
  return out;
}

}  // namespace edgeseq
