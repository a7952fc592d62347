#include "safetensors.h"

#include <algorithm>

namespace edgeseq {
namespace {

constexpr size_t kMostHeader = 1 << 20, kUsual = 256, kLayouts = 4;

[[noreturn]] void no_safetensors() { throw Misfit("these bytes are no safetensors file"); }

// As much of JSON as there is in such a header.
class Json {
 public:
  // Texts that hold escapes go into `kept`.
  Json(std::string_view text, std::list<std::string>& kept) : at_(text.data()), end_(at_ + text.size()), kept_(kept) {}

  // Calls `one(name)` with the reader at each value.
  template <class One>
  void object(const One& one) {
    expect('{');
    members(one);
  }

  // The same of what is left of an object.
  template <class One>
  void members(const One& one) {
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
    return kept_.emplace_back(std::move(out));
  }

  void end() {
    skip_spaces();
    if (at_ < end_) no_safetensors();
  }

  bool taken(std::string_view wanted) {
    skip_spaces();
    const bool found = rest().substr(0, wanted.size()) == wanted;
    at_ += found ? wanted.size() : 0;
    return found;
  }

  void expect(char wanted) {
    if (!taken(wanted)) no_safetensors();
  }

  bool ahead(char wanted) {
    skip_spaces();
    return at_ < end_ && *at_ == wanted;
  }

  bool taken(char wanted) {
    const bool found = ahead(wanted);
    at_ += found;
    return found;
  }

  std::string_view rest() const { return {at_, static_cast<size_t>(end_ - at_)}; }

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
  std::list<std::string>& kept_;
};

Array::Type type_of(std::string_view name, size_t* bytes) {
  if (name == "I8") return *bytes = 1, Array::Type::int8;
  if (name == "F16") return *bytes = 2, Array::Type::float16;
  if (name == "F32") return *bytes = 4, Array::Type::float32;
  throw Misfit("an array is neither int8 nor fp16 nor fp32");
}

}  // namespace

Layout::Layout(std::string_view given, size_t bytes) : text(given), bytes(bytes) {
  std::vector<std::array<size_t, 2>> places;
  places.reserve(kUsual);
  Json json(text, kept_);
  json.members([&](std::string_view name) {
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
    if (!item || ends != 2 || place[0] > place[1] || place[1] > bytes) no_safetensors();
    size_t count = 1;
    for (size_t i = 0; i < array.dimensions; i++) {
      if (array.shape[i] > bytes) no_safetensors();
      count *= array.shape[i];
    }
    if (count > bytes || count * item != place[1] - place[0]) no_safetensors();
    array.first = place[0];
    places.push_back(place);
    add(name, array);
  });
  json.end();
  if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
  size_t end = 0;
  for (const auto& place : places) {
    if (place[0] != end) no_safetensors();
    end = place[1];
  }
  if (end != bytes) no_safetensors();
}

void Layout::add(std::string_view name, const Array& array) {
  const size_t hash = Key::hash_of(name);
  if (find(name, hash) < entries_.size()) throw Misfit(std::string(name) + " is there twice");
  entries_.push_back({name, hash});
  arrays.push_back(array);
  if (2 * entries_.size() <= places_.size()) return place(entries_.size() - 1);
  places_.assign(std::max(2 * kUsual, 2 * places_.size()), 0);
  entries_.reserve(places_.size() / 2);
  arrays.reserve(places_.size() / 2);
  for (size_t at = 0; at < entries_.size(); at++) place(at);
}

void Layout::place(size_t entry) {
  const size_t last = places_.size() - 1;
  size_t at = entries_[entry].hash & last;
  while (places_[at]) at = (at + 1) & last;
  places_[at] = static_cast<uint32_t>(entry + 1);
}

std::shared_ptr<const Layout> Layouts::of(std::string_view text, size_t bytes) {
  {
    const std::lock_guard<std::mutex> held(mutex_);
    const auto same = [&](const auto& one) { return one->bytes == bytes && one->text == text; };
    const auto found = std::find_if(last_.begin(), last_.end(), same);
    if (found != last_.end()) {
      std::rotate(last_.begin(), found, found + 1);
      return last_.front();
    }
  }
  auto made = std::make_shared<const Layout>(text, bytes);
  const std::lock_guard<std::mutex> held(mutex_);
  last_.insert(last_.begin(), made);
  if (last_.size() > kLayouts) last_.pop_back();
  return made;
}

Tensors::Tensors(std::string_view bytes, Layouts* known) {
  uint64_t length;
  if (bytes.size() < sizeof length) no_safetensors();
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes.remove_prefix(sizeof length);
  if (length > kMostHeader || length > bytes.size()) no_safetensors();
  const std::string_view data = bytes.substr(length);
  std::list<std::string> kept;
  Json json(bytes.substr(0, length), kept);
  json.expect('{');
  if (json.taken("\"__metadata__\"")) {
    json.expect(':');
    json.object([&](std::string_view key) {
      const std::string_view value = json.text();
      if (key == "header") header = value;
    });
    if (json.taken(',') == json.ahead('}')) no_safetensors();
  }
  auto layout = known ? known->of(json.rest(), data.size()) : std::make_shared<const Layout>(json.rest(), data.size());
  arrays = Arrays(std::move(layout), data.data());
}

}  // namespace edgeseq
