#include "safetensors.h"

#include <algorithm>

namespace edgeseq {
namespace {

constexpr size_t kMostHeader = 1 << 20, kUsual = 256;

[[noreturn]] void no_safetensors() { throw Misfit("these bytes are no safetensors file"); }

// As much of JSON as there is in such a header.
class Json {
 public:
  // Texts that hold escapes are kept by `arrays`.
  Json(std::string_view text, Arrays& arrays) : at_(text.data()), end_(text.data() + text.size()), arrays_(arrays) {}

  // Calls `one(name)` with the reader at each value.
  template <class One>
  void object(const One& one) {
    expect('{');
    if (taken('}')) return;
    do {
      const std::string_view name = text();
      expect(':');
      one(name);
    } while (taken(','));
    expect('}');
  }

  // As many numbers as there are, two at most.
  size_t numbers(std::array<size_t, 2>* out) {
    size_t count = 0;
    expect('[');
    if (taken(']')) return count;
    do {
      if (count == out->size()) throw Misfit("an array has too many dimensions");
      (*out)[count++] = number();
    } while (taken(','));
    expect(']');
    return count;
  }

  std::string_view text() {
    expect('"');
    const std::string_view plain = run();
    if (*at_++ == '"') return plain;
    std::string out(plain);
    do {
      out += escaped();
      out += run();
    } while (*at_++ != '"');
    return arrays_.keep(std::move(out));
  }

  void end() {
    skip_spaces();
    if (at_ < end_) no_safetensors();
  }

 private:
  // The lowest bit that is set is of the first of eight bytes that is a quote, a backslash or no text.
  static uint64_t ends_of_run(const char* from) {
    constexpr uint64_t each = 0x0101010101010101u, top = 0x80 * each;
    uint64_t eight;
    std::memcpy(&eight, from, sizeof eight);
    const uint64_t quote = eight ^ '"' * each, escape = eight ^ '\\' * each;
    return (((quote - each) & ~quote) | ((escape - each) & ~escape) | ((eight - 32 * each) & ~eight)) & top;
  }

  // What comes before the next quote or escape.
  std::string_view run() {
    const char* from = at_;
    uint64_t ends = 0;
    for (; !ends && end_ - at_ >= 8; at_ += ends ? __builtin_ctzll(ends) / 8 : 8) ends = ends_of_run(at_);
    if (!ends)
      while (at_ < end_ && *at_ != '"' && *at_ != '\\' && static_cast<unsigned char>(*at_) >= 32) at_++;
    if (at_ == end_ || static_cast<unsigned char>(*at_) < 32) no_safetensors();
    return {from, static_cast<size_t>(at_ - from)};
  }

  void skip_spaces() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) at_++;
  }

  bool taken(char wanted) {
    skip_spaces();
    if (at_ == end_ || *at_ != wanted) return false;
    at_++;
    return true;
  }

  void expect(char wanted) {
    if (!taken(wanted)) no_safetensors();
  }

  size_t number() {
    skip_spaces();
    size_t out = 0, digits = 0;
    for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; at_++, digits++) out = out * 10 + static_cast<size_t>(*at_ - '0');
    if (!digits || digits > 15) no_safetensors();
    return out;
  }

  // What writers escape in a header of ASCII.
  char escaped() {
    static constexpr char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char* found = at_ < end_ && *at_ ? std::strchr(names, *at_) : nullptr;
    if (!found) no_safetensors();
    at_++;
    return meant[found - names];
  }

  const char *at_, *end_;
  Arrays& arrays_;
};

Array::Type type_of(std::string_view name, size_t* bytes) {
  if (name == "I8") return *bytes = 1, Array::Type::int8;
  if (name == "F16") return *bytes = 2, Array::Type::float16;
  if (name == "F32") return *bytes = 4, Array::Type::float32;
  throw Misfit("an array is neither int8 nor fp16 nor fp32");
}

}  // namespace

Tensors::Tensors(std::string_view bytes) {
  uint64_t length;
  if (bytes.size() < sizeof length) no_safetensors();
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes.remove_prefix(sizeof length);
  if (length > kMostHeader || length > bytes.size()) no_safetensors();
  const std::string_view data = bytes.substr(length);
  std::vector<std::array<size_t, 2>> places;
  places.reserve(kUsual);
  Json json(bytes.substr(0, length), arrays);
  json.object([&](std::string_view name) {
    if (name == "__metadata__")
      return json.object([&](std::string_view key) {
        const std::string_view value = json.text();
        if (key == "header") header = value;
      });
    Array array{};
    std::array<size_t, 2> place{};
    size_t item = 0, ends = 0;
    json.object([&](std::string_view key) {
      if (key == "dtype") {
        array.type = type_of(json.text(), &item);
      } else if (key == "shape") {
        array.dimensions = json.numbers(&array.shape);
      } else if (key == "data_offsets") {
        ends = json.numbers(&place);
      } else {
        no_safetensors();
      }
    });
    if (!item || ends != 2 || place[0] > place[1] || place[1] > data.size()) no_safetensors();
    size_t count = 1;
    for (size_t i = 0; i < array.dimensions; i++) {
      if (array.shape[i] > data.size()) no_safetensors();
      count *= array.shape[i];
    }
    if (count > data.size() || count * item != place[1] - place[0]) no_safetensors();
    array.data = data.data() + place[0];
    places.push_back(place);
    arrays.add(name, array);
  });
  json.end();
  if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
  size_t end = 0;
  for (const auto& place : places) {
    if (place[0] != end) no_safetensors();
    end = place[1];
  }
  if (end != data.size()) no_safetensors();
}

}  // namespace edgeseq
