// What Python sees: bytes, a base, calibrations of it, and an engine.  Sizes are checked here or in `Reader`.
#include <pybind11/native_enum.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>

#include "loops.h"
#include "safetensors.h"
#include "search.h"

namespace py = pybind11;
using namespace edgeseq;

namespace {

using Ids = std::vector<uint32_t>;

// Arrays in bytes that Python holds on to; nothing is copied.
struct Stored {
  explicit Stored(py::bytes of, Layouts* known) : bytes(std::move(of)), tensors(std::string_view(bytes), known) {}

  // An fp32 array, taken out; None where there is none.
  py::object take(const std::string& name) {
    Array* array = tensors.arrays.find(name);
    if (!array || array->taken) return py::none();
    array->taken = true;
    if (array->type != Array::Type::float32) throw Misfit(name + " is not fp32");
    py::array_t<float> out(std::vector<size_t>(array->shape.begin(), array->shape.begin() + array->dimensions));
    std::memcpy(out.mutable_data(), array->data, static_cast<size_t>(out.nbytes()));
    return out;
  }

  py::bytes bytes;
  Tensors tensors;
};

Shape shape_of(const py::dict& given) {
  const auto number = [&](const char* name) { return py::cast<size_t>(given[name]); };
  const auto numbers = [&](const char* name) { return py::cast<std::vector<size_t>>(given[name]); };
  return {number("vocabulary"),     number("d_model"),        number("head_width"),
          number("encoder_layers"), number("decoder_layers"), number("task_tokens"),
          number("max_tokens"),     numbers("query_width"),   numbers("key_width"),
          numbers("encoder_ffn"),   numbers("decoder_ffn"),   py::cast<bool>(given["copies"]),
          numbers("tail_sizes"),    numbers("tail_widths")};
}

std::shared_ptr<Model> make_model(const py::dict& shape, Stored& stored) {
  const Shape wanted = shape_of(shape);
  const py::gil_scoped_release released;
  Reader read(std::move(stored.tensors.arrays));
  return std::make_shared<Model>(wanted, read);
}

CalibrationShape calibration_shape(const py::dict& given) {
  return {py::cast<size_t>(given["rank"]),        py::cast<size_t>(given["encoder_layers"]),
          py::cast<size_t>(given["task_tokens"]), py::cast<std::vector<float>>(given["task_scores"]),
          py::cast<Ids>(given["rows"]),           py::cast<std::vector<Ids>>(given["symbols"]),
          py::cast<Ids>(given["alphabet"]),       py::cast<size_t>(given["source_rows"])};
}

std::shared_ptr<Calibration> make_calibration(Engine& engine, const CalibrationShape& shape, Stored& stored) {
  const py::gil_scoped_release released;  // answers go on meanwhile
  Reader read(std::move(stored.tensors.arrays));
  return std::make_shared<Calibration>(engine.model, shape, read, engine.kernels.zero);
}

void check_source(const Engine& engine, const Ids& source) {
  const Shape& shape = engine.model->shape;
  if (source.empty() || source.size() > shape.max_tokens) throw py::value_error("a source is empty or too long");
  for (uint32_t token : source)
    if (token >= shape.vocabulary) throw py::value_error("a source has a token that is none");
}

void check(const Engine& engine, const std::vector<Request>& requests) {
  if (requests.size() > UINT16_MAX) throw py::value_error("too many rows in a batch");
  for (const Request& one : requests) {
    check_source(engine, one.source);
    if (!one.task || one.task->model != engine.model) throw py::value_error("a calibration of another base");
    if (!one.own.empty() && one.own.size() != one.source.size()) throw py::value_error("an own row, or none, a token");
    for (uint32_t row : one.own)
      if (row > one.task->shape.source_rows) throw py::value_error("a source has an own row that is none");
    if (engine.model->shape.copies && one.symbols.size() != one.source.size())
      throw py::value_error("a symbol that can be copied a token");
    for (uint32_t symbol : one.symbols)
      if (symbol >= one.task->symbols()) throw py::value_error("a source stands for a symbol that is none");
    if (!one.width || one.width > 1024) throw py::value_error("a row has between 1 and 1,024 answers");
  }
}

void check(const std::vector<Request>& requests, const std::vector<Ids>& wanted, const Engine& engine) {
  if (requests.size() != wanted.size()) throw py::value_error("a target a row");
  for (size_t i = 0; i < wanted.size(); i++) {
    if (wanted[i].size() > engine.model->shape.max_tokens) throw py::value_error("a target is too long");
    for (uint32_t token : wanted[i])
      if (token >= requests[i].task->symbols()) throw py::value_error("a target has a symbol that is none");
  }
}

std::vector<Found> generate(Engine& engine, const std::vector<Request>& requests, size_t max_tokens,
                            float temperature, const py::object& ask, size_t threads) {
  check(engine, requests);
  Limits limits{max_tokens, temperature, {}};
  if (!ask.is_none())
    limits.ask = [&ask](const std::vector<size_t>& rows, std::vector<Stop>& stops) {
      const py::gil_scoped_acquire held;
      stops = py::cast<std::vector<Stop>>(ask(rows));
      if (stops.size() != rows.size()) throw py::value_error("a stop, or none, for each row");
    };
  const py::gil_scoped_release released;
  return engine.generate(requests, limits, threads);
}

std::vector<Scored> score(Engine& engine, const std::vector<Request>& requests, const std::vector<Ids>& wanted,
                          size_t threads) {
  check(engine, requests);
  check(requests, wanted, engine);
  const py::gil_scoped_release released;
  return engine.score(requests, wanted, threads);
}

std::vector<py::array_t<float>> logits(Engine& engine, const std::vector<Request>& requests,
                                       const std::vector<Ids>& wanted) {
  check(engine, requests);
  check(requests, wanted, engine);
  std::vector<py::array_t<float>> out;
  const auto found = engine.logits(requests, wanted);
  for (size_t i = 0; i < found.size(); i++)
    out.emplace_back(std::vector<size_t>{wanted[i].size(), requests[i].task->symbols()}, found[i].data());
  return out;
}

// Exact sums x w^T of int8 values by the named kernels, for tests.
py::array_t<int32_t> sums(const std::string& isa, const py::array_t<int8_t, py::array::c_style>& x,
                          const py::array_t<int8_t, py::array::c_style>& w) {
  const Kernels* kernels = named(isa.c_str());
  if (!kernels || x.ndim() != 2 || w.ndim() != 2 || x.shape(1) != w.shape(1))
    throw py::value_error("unknown instructions, or shapes that do not fit");
  const auto rows = static_cast<size_t>(x.shape(0)), out = static_cast<size_t>(w.shape(0)),
             columns = static_cast<size_t>(x.shape(1));
  Matrix matrix(out, columns);
  matrix.put(0, {w.data(), std::vector<float>(out, 1.0f)}, out);
  const size_t stride = matrix.view().places.groups * 4, width = matrix.blocks() * kLanes;
  Aligned<uint8_t> codes((rows + kRowsAhead) * stride);
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < columns; c++)
      codes[r * stride + c] = static_cast<uint8_t>(x.data()[r * columns + c] + kernels->zero);
  Aligned<int32_t> found(rows * width);
  kernels->sums({matrix.view(), 0, matrix.blocks(), codes.data(), stride, nullptr, rows, nullptr, nullptr, nullptr, nullptr, 0},
                found.data());
  py::array_t<int32_t> made({rows, out});
  for (size_t r = 0; r < rows; r++) std::copy_n(&found[r * width], out, made.mutable_data(r, 0));
  return made;
}

// What the loops of this CPU, or the plain ones, make of fp16 numbers, for tests; None where one is not finite.
py::object widened(bool plain, const py::array_t<uint16_t, py::array::c_style>& halves) {
  py::array_t<float> out(halves.size());
  const Loops& of = plain ? *loops_plain() : loops();
  const auto* from = reinterpret_cast<const char*>(halves.data());
  return of.widen(from, static_cast<size_t>(halves.size()), out.mutable_data()) ? py::object(out) : py::none();
}

// The same of a matrix, rows [first, first + N) of blocks: packed values and offsets; None where one is -128.
py::object packed(bool plain, const py::array_t<int8_t, py::array::c_style>& w, size_t first) {
  if (w.ndim() != 2) throw py::value_error("a matrix has two dimensions");
  const auto rows = static_cast<size_t>(w.shape(0)), columns = static_cast<size_t>(w.shape(1)),
             groups = padded(columns, 4) / 4;
  const Loops& of = plain ? *loops_plain() : loops();
  py::array_t<int8_t> blocks(padded(first + rows, kLanes) * groups * 4);
  py::array_t<int32_t> offsets(rows);
  std::fill_n(blocks.mutable_data(), blocks.size(), int8_t{0});
  of.pack(w.data(), rows, columns, first, {groups, padded(first + rows, kLanes) / kLanes}, blocks.mutable_data());
  const bool good = of.offsets(w.data(), rows, columns, offsets.mutable_data());
  return good ? py::object(py::make_tuple(blocks, offsets)) : py::none();
}

// Multiply-adds a second of exact sums, everything packed beforehand: what the named kernels can do at best.
double multiply_adds_a_second(const std::string& isa, size_t rows, size_t out, size_t columns, double seconds) {
  const Kernels* kernels = named(isa.c_str());
  if (!kernels || !rows || !out || !columns) throw py::value_error("unknown instructions, or an empty product");
  const py::gil_scoped_release released;
  const std::vector<int8_t> weights(out * columns, 1);
  Matrix matrix(out, columns);
  matrix.put(0, {weights.data(), std::vector<float>(out, 1.0f)}, out);
  const size_t stride = matrix.view().places.groups * 4;
  Aligned<uint8_t> codes((rows + kRowsAhead) * stride);
  Aligned<int32_t> found(rows * matrix.blocks() * kLanes);
  const Product product{matrix.view(), 0, matrix.blocks(), codes.data(), stride, nullptr, rows, nullptr, nullptr,
                        nullptr, nullptr, 0};
  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  kernels->sums(product, found.data());  // warm
  size_t times = 0;
  const double began = now();
  double spent;
  do {
    kernels->sums(product, found.data());
    times++;
    spent = now() - began;
  } while (spent < seconds);
  return static_cast<double>(times) * static_cast<double>(rows * out * columns) / spent;
}

std::vector<std::string> instruction_sets() {
  size_t count;
  const Kernels* const* all = available(&count);
  std::vector<std::string> out;
  for (size_t i = 0; i < count; i++) out.emplace_back(all[i]->name);
  return out;
}

std::shared_ptr<Engine> make_engine(std::shared_ptr<Model> model, const std::string& isa) {
  const Kernels* kernels = named(isa.c_str());
  if (!kernels) throw py::value_error("this CPU or build has no " + isa);
  return std::make_shared<Engine>(std::move(model), *kernels);
}

}  // namespace

PYBIND11_MODULE(_engine, m) {
  py::register_exception<Misfit>(m, "Misfit", PyExc_ValueError);
  py::native_enum<Stop>(m, "Stop", "enum.Enum")
      .value("none", Stop::none)
      .value("end", Stop::end)
      .value("length", Stop::length)
      .value("deadline", Stop::deadline)
      .value("cancelled", Stop::cancelled)
      .finalize();
  py::classh<Layouts>(m, "Layouts").def(py::init<>());
  py::classh<Stored>(m, "Stored")
      .def(py::init<py::bytes, Layouts*>(), py::arg("bytes"), py::arg("known") = nullptr)
      .def_property_readonly("header", [](const Stored& stored) { return stored.tensors.header; })
      .def("take", &Stored::take);
  py::classh<Model>(m, "Model").def(py::init(&make_model)).def_property_readonly("bytes", &Model::bytes);
  py::classh<CalibrationShape>(m, "CalibrationShape").def(py::init(&calibration_shape));
  py::classh<Calibration>(m, "Calibration")
      .def_readonly("shape", &Calibration::shape)
      .def_property_readonly("bytes", &Calibration::bytes);
  py::classh<Request>(m, "Request")
      .def(py::init([](Ids source, Ids own, Ids symbols, std::shared_ptr<Calibration> task, size_t width,
                       bool constrained) {
             return Request{std::move(source), std::move(task), width, constrained, std::move(own), std::move(symbols)};
           }),
           py::arg("source"), py::arg("own"), py::arg("symbols"), py::arg("task"), py::arg("width") = 1,
           py::arg("constrained") = false);
  py::classh<Hypothesis>(m, "Hypothesis")
      .def_readonly("tokens", &Hypothesis::tokens)
      .def_readonly("log_probability", &Hypothesis::log_probability);
  py::classh<Found>(m, "Found")
      .def_readonly("hypotheses", &Found::hypotheses)
      .def_readonly("stop", &Found::stop);
  py::classh<Scored>(m, "Scored")
      .def_readonly("loss", &Scored::loss)
      .def_readonly("tokens", &Scored::tokens)
      .def_readonly("exact", &Scored::exact);
  py::classh<Engine>(m, "Engine")
      .def(py::init(&make_engine))
      .def("calibration", &make_calibration)
      .def("generate", &generate)
      .def("score", &score)
      .def("logits", &logits)
      .def("features",
           [](Engine& engine, const std::vector<Ids>& sources, size_t layers) {
             for (const Ids& one : sources) check_source(engine, one);
             const py::gil_scoped_release released;
             return engine.features(sources, layers);
           })
      .def_property_readonly("instructions", [](const Engine& engine) { return engine.kernels.name; });
  m.def("sums", &sums);
  m.def("widened", &widened);
  m.def("packed", &packed);
  m.def("multiply_adds_a_second", &multiply_adds_a_second);
  m.def("instruction_sets", &instruction_sets);
}
