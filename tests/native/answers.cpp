// Prints what every set of instructions that runs here makes of the same inputs: sums of products, and answers.
// Built for another CPU by test_arm64.py, which also writes the files.
//
//   answers BASE SHAPE SUMS REQUESTS CALIBRATION...
#include <cstdio>

#include "driver.h"

using namespace edgeseq;

namespace {

constexpr size_t kTokens = 12;

Aligned<int32_t> sums(const Kernels& kernels, const Array& x, const Array& w) {
  const size_t rows = x.shape[0], out = w.shape[0], columns = w.shape[1];
  Matrix matrix(out, columns);
  matrix.put(0, {reinterpret_cast<const int8_t*>(w.data), std::vector<float>(out, 1.0f)}, out);
  const size_t stride = matrix.view().places.groups * 4;
  Aligned<uint8_t> codes((rows + kRowsAhead) * stride);
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < columns; c++)
      codes[r * stride + c] = static_cast<uint8_t>(x.data[r * columns + c] + kernels.zero);
  Aligned<int32_t> found(rows * matrix.blocks() * kLanes);
  kernels.sums({matrix.view(), 0, matrix.blocks(), codes.data(), stride, nullptr, rows, nullptr, nullptr, nullptr, nullptr, 0},
               found.data());
  return found;
}

void print_sums(const Kernels& kernels, Tensors& tensors) {
  for (size_t i = 0; tensors.arrays.find("x" + std::to_string(i)); i++) {
    const Array &x = *tensors.arrays.find("x" + std::to_string(i)), &w = *tensors.arrays.find("w" + std::to_string(i));
    const Aligned<int32_t> found = sums(kernels, x, w);
    const size_t width = padded(w.shape[0], kLanes);
    std::printf("%s sums", kernels.name);
    for (size_t r = 0; r < x.shape[0]; r++)
      for (size_t n = 0; n < w.shape[0]; n++) std::printf(" %d", found[r * width + n]);
    std::puts("");
  }
}

void print_answers(const Kernels& kernels, const std::vector<std::string>& arguments) {
  Engine engine(load_base(arguments.at(0), arguments.at(1)), kernels);
  std::vector<std::shared_ptr<const Calibration>> tasks;
  for (size_t file = 4; file < arguments.size(); file++) tasks.push_back(load_task(engine, arguments[file]));
  for (const Found& found : engine.generate(load_requests(arguments.at(3), tasks), {kTokens, 1, {}}, 2))
    for (const Hypothesis& one : found.hypotheses) {
      std::printf("%s answer %.9g", kernels.name, static_cast<double>(one.log_probability));
      for (uint32_t token : one.tokens) std::printf(" %u", token);
      std::puts("");
    }
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> files(arguments + 1, arguments + count);
  const std::string bytes = contents(files.at(2));
  Tensors tensors(bytes);
  size_t sets;
  const Kernels* const* kernels = available(&sets);
  for (size_t i = 0; i < sets; i++) {
    print_sums(*kernels[i], tensors);
    print_answers(*kernels[i], files);
  }
}
