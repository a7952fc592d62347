#include "model.h"

#include <cmath>
#include <numeric>

namespace edgeseq {
namespace {

// Of the pointer (edgeseq_core/model/output.py, which says why).
constexpr float kPointerBase = 30, kDistanceCost = 0.5f;

// The name of a site's own parameter, as PyTorch's ParameterDict has it.
std::string key(const std::string& site, const std::string& part) {
  std::string out = site + "." + part;
  std::replace(out.begin(), out.end(), '.', '_');
  return out;
}

Aligned<float> gain(Reader& arrays, const std::string& sublayer, size_t d) {
  return {arrays.floats("norms." + key(sublayer, "norm"), d), d};
}

// How rotary positions turn each of `quarter` pairs at each of `places`: [places, quarter].
void turns(float base, size_t quarter, size_t places, Aligned<float>* cosine, Aligned<float>* sine) {
  *cosine = Aligned<float>(places * quarter);
  *sine = Aligned<float>(places * quarter);
  for (size_t i = 0; i < quarter; i++) {
    const float frequency = std::pow(base, -static_cast<float>(i) / static_cast<float>(quarter));
    for (size_t at = 0; at < places; at++) {
      const float angle = static_cast<float>(at) * frequency;
      (*cosine)[at * quarter + i] = std::cos(angle);
      (*sine)[at * quarter + i] = std::sin(angle);
    }
  }
}

bool fits(const std::vector<size_t>& widths, size_t unit) {
  return std::all_of(widths.begin(), widths.end(), [&](size_t w) { return w && w % unit == 0; });
}

}  // namespace

void Shape::check() const {
  const bool whole = vocabulary && d_model && head_width && encoder_layers && max_tokens;
  if (!whole || d_model % kLanes || head_width % kLanes)
    throw Misfit("d_model and the width of a head must be multiples of 16");
  if (query_width.size() != key_width.size() || query_width.size() < 2 * decoder_layers)
    throw Misfit("the decoder borrows two attention groups a layer");
  if (!fits(query_width, head_width) || !fits(key_width, head_width))
    throw Misfit("an attention group is made of whole heads");
  for (size_t g = 0; g < query_width.size(); g++)
    if (query_width[g] % key_width[g]) throw Misfit("heads of keys divide heads of queries");
  if (encoder_ffn.empty() || decoder_ffn.size() != decoder_layers)
    throw Misfit("each layer has the width of its FFN");
  if (tail_sizes.size() != tail_widths.size() || !fits(tail_sizes, 1) || !fits(tail_widths, 1))
    throw Misfit("each band has a size and a width");
  for (size_t t = 0, rest = vocabulary; t < tail_sizes.size(); rest -= tail_sizes[t++])
    if (tail_sizes[t] >= rest || tail_widths[t] > d_model) throw Misfit("bands are parts of the vocabulary");
  if (copies && !tail_sizes.empty()) throw Misfit("a base that copies has no bands");
}

size_t Shape::first_band() const {
  return vocabulary - std::accumulate(tail_sizes.begin(), tail_sizes.end(), size_t{0});
}

Model::Model(const Shape& given, Reader& arrays) : shape(given) {
  shape.check();
  const size_t d = shape.d_model, v = shape.vocabulary;
  read_groups(arrays);
  for (size_t l = 0; l < shape.encoder_layers; l++) {
    const std::string name = "encoder." + std::to_string(l);
    const size_t group = l % attention_groups_.size(), wide = l % ffn_groups_.size();
    encoder.push_back({attention(arrays, name + ".self", group),
                       ffn(arrays, name + ".ffn", name + ".ffn", ffn_groups_[wide],
                           shape.encoder_ffn[wide])});
  }
  for (size_t l = 0; l < shape.decoder_layers; l++) {
    const std::string name = "decoder." + std::to_string(l);
    const size_t width = shape.decoder_ffn[l];
    DecoderLayer layer{attention(arrays, name + ".self", 2 * l),
                       attention(arrays, name + ".cross", 2 * l + 1), width > 0, {}, {}};
    if (layer.feeds) {
      layer.ffn1 = ffn(arrays, name + ".ffn1", name + ".ffn", small_groups_[l], width);
      layer.ffn2 = ffn(arrays, name + ".ffn2", name + ".ffn", small_groups_[l], width);
    }
    decoder.push_back(std::move(layer));
  }
  const size_t first = shape.first_band();
  table = Matrix(first, d);
  table.put(0, arrays.matrix("embedding", first, d), first);
  // A tail begins anywhere, so that its last block reaches further.
  vocabulary_bias = Aligned<float>(padded(v, kLanes) + kLanes);
  std::fill_n(vocabulary_bias.data(), vocabulary_bias.size(), -INFINITY);  // no token is beyond it
  const std::vector<float> bias = arrays.floats("vocabulary_bias", v);
  std::copy(bias.begin(), bias.end(), vocabulary_bias.data());
  encoder_gain = gain(arrays, "encoder.out", d);
  decoder_gain = gain(arrays, "decoder.out", d);
  arrays.matrix("task_tokens", shape.task_tokens, d);  // a calibration has its own
  arrays.floats("task_vector", d);
  if (shape.copies) read_pointer(arrays);
  if (!shape.tail_sizes.empty()) read_tails(arrays);
  arrays.finish();
  number_sites();
  turns(10000, head_quarter(), shape.max_tokens + 1, &cosine, &sine);
}

void Model::read_tails(Reader& arrays) {
  const size_t d = shape.d_model, count = shape.tail_sizes.size();
  size_t first = shape.first_band();
  for (size_t t = 0; t < count; first += shape.tail_sizes[t++]) {
    const size_t size = shape.tail_sizes[t], width = shape.tail_widths[t];
    const std::string name = "tails." + std::to_string(t);
    const QuantizedRows rows = arrays.matrix(name + "_rows", size, width), out = arrays.matrix(name + "_out", d, width);
    std::vector<int8_t> turned(d * width);
    for (size_t r = 0; r < d; r++)
      for (size_t c = 0; c < width; c++) turned[c * d + r] = out.values[r * width + c];
    Tail tail{first, Matrix(size, width), Matrix(d, width), Matrix(width, d), Aligned<float>(d),
              Aligned<float>(padded(width, kLanes)), Aligned<float>(out.scale, d), {}, {}};
    tail.rows.put(0, rows, size);
    tail.wide.put(0, out, d);
    tail.narrow.put(0, {turned.data(), std::vector<float>(width, 1.0f)}, width);
    std::fill_n(tail.ones.data(), width, 1.0f);
    tail.widened.scale = tail.wide.scale().data();
    tail.narrowed.scale = tail.ones.data();
    tail.widened.bias = tail.narrowed.bias = tail.zeros.data();
    tails.push_back(std::move(tail));
  }
  reach_matrix_ = Matrix(count, d);
  reach_matrix_.put(0, arrays.matrix("matrices.bands_tails", count, d), count);
  reach = linear(arrays, "decoder.bands", reach_matrix_, {{"tails", 0, count}});
}

void Model::read_pointer(Reader& arrays) {
  const size_t width = shape.head_width, d = shape.d_model, middle = shape.max_tokens;
  const std::vector<Part> parts = {{"q", 0, width}, {"gate", width, 1}, {"k", width + kLanes, width}};
  pointer_matrix_ = Matrix(2 * width + kLanes, d);
  for (const Part& part : parts)
    pointer_matrix_.put(part.first, arrays.matrix("matrices.copy_" + part.name, part.rows, d), part.rows);
  pointer.width = width;
  pointer.query_gate_key = linear(arrays, "decoder.copy", pointer_matrix_, parts);
  turns(kPointerBase, width / 4, shape.max_tokens + 1, &pointer.cosine, &pointer.sine);
  pointer.nearness = Aligned<float>(2 * middle + kLanes);
  for (size_t i = 0; i < pointer.nearness.size(); i++)
    pointer.nearness[i] = -kDistanceCost * static_cast<float>(i > middle ? i - middle : middle - i);
}

void Model::read_groups(Reader& arrays) {
  const size_t d = shape.d_model;
  const auto put = [&](Matrix& into, size_t first, const std::string& name, size_t rows, size_t columns) {
    into.put(first, arrays.matrix("matrices." + name, rows, columns), rows);
  };
  for (size_t g = 0; g < shape.query_width.size(); g++) {
    // A cycle that is longer than the network leaves groups without a user, and without a matrix.
    const bool used = g < shape.encoder_layers || g < 2 * shape.decoder_layers;
    const std::string name = "attention" + std::to_string(g) + "_";
    const size_t q = shape.query_width[g], k = shape.key_width[g];
    attention_groups_.push_back({Matrix(q + 2 * k, d), Matrix(d, q)});
    if (!used) continue;
    put(attention_groups_[g].qkv, 0, name + "q", q, d);
    put(attention_groups_[g].qkv, q, name + "k", k, d);
    put(attention_groups_[g].qkv, q + k, name + "v", k, d);
    put(attention_groups_[g].out, 0, name + "o", d, q);
  }
  const auto feed = [&](const std::string& name, size_t width) {
    FfnGroup group{Matrix(width, d), Matrix(d, width)};
    put(group.up, 0, name + "_up", width, d);
    put(group.down, 0, name + "_down", d, width);
    return group;
  };
  for (size_t g = 0; g < shape.encoder_ffn.size(); g++)
    ffn_groups_.push_back(g < shape.encoder_layers
                              ? feed("ffn" + std::to_string(g), shape.encoder_ffn[g])
                              : FfnGroup{});
  for (size_t l = 0; l < shape.decoder_layers; l++)
    small_groups_.push_back(shape.decoder_ffn[l]
                                ? feed("small" + std::to_string(l), shape.decoder_ffn[l])
                                : FfnGroup{});
}

AttentionSite Model::attention(Reader& arrays, const std::string& site, size_t group) {
  const size_t q = shape.query_width[group], k = shape.key_width[group], d = shape.d_model;
  const AttentionGroup& shared = attention_groups_[group];
  return {q / shape.head_width,
          k / shape.head_width,
          q,
          k,
          gain(arrays, site, d),
          linear(arrays, site, shared.qkv, {{"q", 0, q}, {"k", q, k}, {"v", q + k, k}}),
          linear(arrays, site, shared.out, {{"o", 0, d}})};
}

FfnSite Model::ffn(Reader& arrays, const std::string& site, const std::string& norm,
                   const FfnGroup& group, size_t width) {
  return {width, gain(arrays, norm, shape.d_model),
          linear(arrays, site, group.up, {{"up", 0, width}}),
          linear(arrays, site, group.down, {{"down", 0, shape.d_model}})};
}

Linear Model::linear(Reader& arrays, const std::string& site, const Matrix& matrix,
                     std::vector<Part> parts) {
  Linear out{0, site, &matrix, std::move(parts), {}, std::vector<uint8_t>(matrix.blocks()), Aligned<float>(matrix.blocks() * kLanes), {}};
  for (size_t p = 0; p < out.parts.size(); p++) {
    const Part& part = out.parts[p];
    out.keys.emplace_back(site, part.name);
    for (size_t row = part.first; row < part.first + part.rows; row += kLanes)
      out.part_of_block[row / kLanes] = static_cast<uint8_t>(p);
    const std::vector<float> bias = arrays.floats("biases." + key(site, part.name), part.rows);
    std::copy(bias.begin(), bias.end(), out.bias.data() + part.first);
  }
  out.bare.scale = matrix.scale().data();
  out.bare.bias = out.bias.data();
  widest_ = std::max(widest_, matrix.blocks() * kLanes);
  deepest_ = std::max(deepest_, matrix.view().places.groups * 4);
  return out;
}

void Model::number_sites() {
  const auto number = [&](Linear& linear) {
    linear.id = linears_.size();
    linears_.push_back(&linear);
  };
  for (EncoderLayer& layer : encoder)
    for (Linear* one : {&layer.self.qkv, &layer.self.out, &layer.ffn.up, &layer.ffn.down}) number(*one);
  for (DecoderLayer& layer : decoder) {
    for (Linear* one : {&layer.self.qkv, &layer.self.out, &layer.cross.qkv, &layer.cross.out}) number(*one);
    if (layer.feeds)
      for (Linear* one : {&layer.ffn1.up, &layer.ffn1.down, &layer.ffn2.up, &layer.ffn2.down}) number(*one);
  }
  if (shape.copies) number(pointer.query_gate_key);
  if (!tails.empty()) number(reach);
}

size_t Model::bytes() const {
  size_t sum = table.bytes() + pointer_matrix_.bytes() + reach_matrix_.bytes();
  for (const Tail& tail : tails) sum += tail.rows.bytes() + tail.wide.bytes() + tail.narrow.bytes();
  for (const auto& group : attention_groups_) sum += group.qkv.bytes() + group.out.bytes();
  for (const auto* groups : {&ffn_groups_, &small_groups_})
    for (const auto& group : *groups) sum += group.up.bytes() + group.down.bytes();
  for (const Linear* one : linears_) sum += one->bias.bytes();
  return sum;
}

}  // namespace edgeseq
