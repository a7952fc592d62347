#include "safetensors.h"

#include <algorithm>

namespace edgeseq {
namespace {

constexpr size_t kMostHeader = 1 << 20, kMostDimensions = 2, kUsual = 256;

[[noreturn]] void no_safetensors() { throw Misfit("these bytes are no safetensors file"); }

// As much of JSON as there is in such a header.
class Json {
 public:
  explicit Json(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  // Calls `one(name)` with the reader at each value.
  template <class One>
  void object(const One& one) {
    expect('{');
    if (taken('}')) return;
    do {
      const std::string name = text();
      expect(':');
      one(name);
    } while (taken(','));
    expect('}');
  }

  std::vector<size_t> numbers() {
    std::vector<size_t> out;
    out.reserve(kMostDimensions);
    expect('[');
    if (taken(']')) return out;
    do out.push_back(number());
    while (taken(','));
    expect(']');
    return out;
  }

  std::string text() {
    std::string out;
    expect('"');
    for (;;) {
      const char* from = at_;
      while (at_ < end_ && *at_ != '"' && *at_ != '\\' && static_cast<unsigned char>(*at_) >= 32) at_++;
      out.append(from, at_);
      if (at_ == end_ || static_cast<unsigned char>(*at_) < 32) no_safetensors();
      if (*at_++ == '"') return out;
      out += escaped();
    }
  }

  void end() {
    skip_spaces();
    if (at_ < end_) no_safetensors();
  }

 private:
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
};

Array::Type type_of(const std::string& name, size_t* bytes) {
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
  std::vector<std::pair<size_t, size_t>> places;
  arrays.reserve(kUsual);
  places.reserve(kUsual);
  Json json(bytes.substr(0, length));
  json.object([&](const std::string& name) {
    if (name == "__metadata__")
      return json.object([&](const std::string& key) {
        std::string value = json.text();
        if (key == "header") header = std::move(value);
      });
    Array array{};
    std::vector<size_t> place;
    size_t item = 0;
    json.object([&](const std::string& key) {
      if (key == "dtype") {
        array.type = type_of(json.text(), &item);
      } else if (key == "shape") {
        array.shape = json.numbers();
      } else if (key == "data_offsets") {
        place = json.numbers();
      } else {
        no_safetensors();
      }
    });
    if (!item || place.size() != 2 || place[0] > place[1] || place[1] > data.size()) no_safetensors();
    if (array.shape.size() > kMostDimensions) throw Misfit(name + " has too many dimensions");
    size_t count = 1;
    for (size_t n : array.shape) {
      if (n > data.size()) no_safetensors();
      count *= n;
    }
    if (count > data.size() || count * item != place[1] - place[0]) no_safetensors();
    array.data = data.data() + place[0];
    places.emplace_back(place[0], place[1]);
    if (!arrays.emplace(name, std::move(array)).second) throw Misfit(name + " is there twice");
  });
  json.end();
  std::sort(places.begin(), places.end());
  size_t end = 0;
  for (const auto& [from, to] : places) {
    if (from != end) no_safetensors();
    end = to;
  }
  if (end != data.size()) no_safetensors();
}

}  // namespace edgeseq
