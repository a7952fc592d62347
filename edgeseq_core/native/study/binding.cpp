// The learning step as Python sees it: arrays in, arrays out, everything checked on the way in.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "study.h"

namespace py = pybind11;

namespace {

using study::Rows;
using FloatArray = py::array_t<float, py::array::c_style>;
using IntArray = py::array_t<int, py::array::c_style>;
using Numbers = std::vector<int64_t>;

// What this CPU and build can run, best first.
std::vector<const study::Body*> bodies() {
    std::vector<const study::Body*> found;
    const auto add = [&](const study::Body* body, bool here) {
        if (body && here) found.push_back(body);
    };
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    add(study::avx512(), fused && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vnni"));
    add(study::avx2(), fused);
#endif
    add(study::plain(), true);
    return found;
}

void must(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

Rows rows_of(const std::vector<int>& lengths, int most) {
    Rows rows;
    rows.start.push_back(0);
    for (const int length : lengths) {
        must(0 < length && length <= most, "a row is empty or longer than the model has places");
        rows.start.push_back(rows.start.back() + length);
        for (int at = 0; at < length; ++at) rows.place.push_back(at);
    }
    return rows;
}

// The base in the network's order; the arrays are kept, not copied.
class Learner {
  public:
    Learner(int width, int heads_width, int places, int encoder_layers, int decoder_layers,
            std::vector<FloatArray> arrays, const std::string& instructions)
        : arrays_(std::move(arrays)), most_(places) {
        for (const study::Body* body : bodies())
            if (!body_ && (instructions.empty() || instructions == body->name)) body_ = body;
        must(body_, "this CPU or build has no such instructions");
        must(width % 16 == 0 && heads_width % 16 == 0, "widths must be multiples of 16");
        one_.width = width, one_.heads_width = heads_width;
        one_.encoder.resize(encoder_layers), one_.decoder.resize(decoder_layers);
        for (auto& layer : one_.encoder) attention(layer.self), feed(layer.feed);
        for (auto& layer : one_.decoder)
            attention(layer.self), feed(layer.first), attention(layer.cross), feed(layer.second);
        gain(one_.encoder_out), gain(one_.decoder_out);
        must(next_ == arrays_.size(), "there are more arrays than the network has");
        turns(places, heads_width / 4);
    }

    const char* instructions() const { return body_->name; }

    FloatArray encode(FloatArray states, const std::vector<int>& lengths, int first, int last) {
        const Rows rows = rows_of(lengths, most_);
        must(states.ndim() == 2 && states.shape(0) == rows.tokens() && states.shape(1) == one_.width,
             "states do not fit their lengths");
        must(0 <= first && first <= last && last <= int(one_.encoder.size()), "there is no such layer");
        FloatArray out({states.shape(0), states.shape(1)});
        std::copy(states.data(), states.data() + states.size(), out.mutable_data());
        for (int layer = first; layer < last; ++layer) {
            auto& of = one_.encoder[layer];
            for (auto* one : {&of.self.q, &of.self.k, &of.self.v, &of.self.o, &of.feed.up, &of.feed.down})
                one->places = {};
        }
        float* x = out.mutable_data();
        py::gil_scoped_release free;
        one_.read = false;
        body_->encode(one_, rows, x, first, last);
        return out;
    }

    // The reading's number; summed losses, plain losses, tokens and exactness of each pair.
    py::tuple read(FloatArray theta, const std::vector<Numbers>& places, const Numbers& own, int rank,
                   int first_layer, FloatArray states, const std::vector<int>& source_lengths,
                   const std::vector<int>& own_inputs, const std::vector<std::vector<int>>& targets,
                   FloatArray known, FloatArray known_bias, const Numbers& row_tokens,
                   const std::vector<float>& task_scores, float smoothing) {
        study::Batch& batch = one_.batch;
        batch = {};
        batch.rank = rank, batch.first_layer = first_layer, batch.smoothing = smoothing;
        batch.source = rows_of(source_lengths, most_);
        batch.states = states.data(), batch.own_inputs = own_inputs;
        batch.known = known.data(), batch.known_bias = known_bias.data();
        batch.symbols = int(known.shape(0)), batch.tokens = int(task_scores.size());
        batch.task_scores = task_scores, batch.row_tokens = row_tokens;
        must(own.size() == 6 && rank > 0 && 0 <= first_layer && first_layer <= int(one_.encoder.size()),
             "the calibration makes no sense");
        batch.token_at = own[0], batch.vector_at = own[1], batch.rows_at = own[2];
        batch.row_bias_at = own[3], batch.other_bias_at = own[4], batch.source_rows_at = own[5];
        must(states.ndim() == 2 && states.shape(0) == batch.source.tokens() &&
                 states.shape(1) == one_.width && int(own_inputs.size()) == batch.source.tokens() &&
                 known.ndim() == 2 && known.shape(1) == one_.width &&
                 known_bias.size() == known.shape(0) && targets.size() == source_lengths.size(),
             "arrays do not fit each other");
        std::vector<int> lengths;
        for (const auto& target : targets) {
            lengths.push_back(int(target.size()) - 1);
            batch.given.insert(batch.given.end(), target.begin(), target.end() - !target.empty());
            batch.wanted.insert(batch.wanted.end(), target.begin() + !target.empty(), target.end());
        }
        batch.target = rows_of(lengths, most_);
        const auto known_symbol = [&](int64_t v) { return 0 <= v && v < batch.symbols; };
        must(std::all_of(batch.given.begin(), batch.given.end(), known_symbol) &&
                 std::all_of(batch.wanted.begin(), batch.wanted.end(), known_symbol) &&
                 std::all_of(row_tokens.begin(), row_tokens.end(), known_symbol),
             "a token is none of the symbols");
        batch.row_of.assign(batch.symbols, -1);
        for (size_t r = 0; r < row_tokens.size(); ++r) batch.row_of[row_tokens[r]] = int(r);
        one_.theta.assign(theta.data(), theta.data() + theta.size());
        lay_out(places, theta.size());
        {
            py::gil_scoped_release free;
            body_->read(one_);
        }
        const int pairs = batch.target.count();
        FloatArray losses(pairs), plain(pairs);
        std::vector<bool> exact(pairs, true);
        for (int b = 0; b < pairs; ++b) {
            float smooth = 0, exactly = 0;
            for (int n = batch.target.start[b]; n < batch.target.start[b + 1]; ++n)
                smooth += one_.losses[n], exactly += one_.plain[n], exact[b] = exact[b] && one_.right[n];
            losses.mutable_at(b) = smooth, plain.mutable_at(b) = exactly;
        }
        return py::make_tuple(++reading_, losses, plain, lengths, exact);
    }

    // The k likeliest symbols of each target token [N, k] and their log-probabilities, likeliest first.
    py::tuple said(int64_t reading, int k) {
        must(one_.read && reading == reading_, "what is said is of the batch read last, before its gradients");
        const int tokens = one_.batch.target.tokens(), symbols = one_.batch.symbols;
        must(0 < k && k <= symbols && k <= study::MOST_SAID, "there are not so many symbols to say");
        IntArray ids({tokens, k});
        FloatArray logs({tokens, k});
        std::vector<int> order(symbols);
        for (int n = 0; n < tokens; ++n) {
            const float* row = one_.shares.data() + size_t(n) * one_.symbols_padded;
            std::iota(order.begin(), order.end(), 0);
            std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int a, int b) {
                return row[a] > row[b] || (row[a] == row[b] && a < b);
            });
            for (int i = 0; i < k; ++i) {
                ids.mutable_at(n, i) = order[i];
                logs.mutable_at(n, i) = std::log(std::max(row[order[i]], std::numeric_limits<float>::min()));
            }
        }
        return py::make_tuple(ids, logs);
    }

    // Of sum(pull * loss), and of weight times the divergence from what a teacher says of each token: symbols
    // and probabilities [N, k], k = 0 where there is none.
    FloatArray gradients(int64_t reading, FloatArray pull, IntArray ids, FloatArray shares, float weight) {
        must(one_.read && reading == reading_, "gradients are of the batch read last, once");
        must(pull.size() == one_.batch.target.count(), "there is a pull for each pair");
        must(ids.ndim() == 2 && shares.ndim() == 2 && ids.shape(0) == shares.shape(0) &&
                 ids.shape(1) == shares.shape(1) && ids.shape(1) <= study::MOST_SAID &&
                 (ids.shape(1) == 0 || ids.shape(0) == one_.batch.target.tokens()) &&
                 std::all_of(ids.data(), ids.data() + ids.size(),
                             [&](int v) { return 0 <= v && v < one_.batch.symbols; }),
             "what a teacher says does not fit the batch");
        one_.taught = {ids.data(), shares.data(), int(ids.shape(1)), weight};
        const float* of_pairs = pull.data();
        {
            py::gil_scoped_release free;
            body_->teach(one_, of_pairs);
        }
        one_.taught = {};
        FloatArray out(one_.gradient.size());
        std::copy(one_.gradient.begin(), one_.gradient.end(), out.mutable_data());
        return out;
    }

  private:
    const study::Body* body_ = nullptr;
    study::Study one_;
    std::vector<FloatArray> arrays_;
    std::vector<study::Linear*> linears_;
    size_t next_ = 0;
    int most_;
    int64_t reading_ = 0;

    const FloatArray& array() {
        must(next_ < arrays_.size(), "there are fewer arrays than the network has");
        return arrays_[next_++];
    }

    void linear(study::Linear& one, int shared = 1) {
        const FloatArray &weight = array(), &bias = array();
        must(weight.ndim() == 2 && bias.size() == weight.shape(0), "a bias does not fit its matrix");
        one.out = int(weight.shape(0)), one.in = int(weight.shape(1)), one.shared = shared;
        one.weight = weight.data(), one.bias = bias.data();
        linears_.push_back(&one);
    }

    void gain(study::Norm& norm) {
        const FloatArray& one = array();
        must(one.size() == one_.width, "a norm is not as wide as the model");
        norm.gain = one.data();
    }

    void attention(study::Attention& of) {
        gain(of.norm);
        linear(of.q, one_.heads_width), linear(of.k), linear(of.v), linear(of.o);
        must(of.q.in == one_.width && of.k.in == one_.width && of.v.in == one_.width &&
                 of.o.out == one_.width && of.o.in == of.q.out && of.v.out == of.k.out && of.k.out > 0 &&
                 of.q.out % of.k.out == 0 && of.k.out % one_.heads_width == 0,
             "an attention's matrices do not fit");
    }

    void feed(study::Feed& of) {
        gain(of.norm);
        linear(of.up), linear(of.down);
        must(of.up.in == one_.width && of.down.out == one_.width && of.down.in == of.up.out,
             "an FFN's matrices do not fit");
    }

    // As `Rotary` in edgeseq_core/model/positions.py.
    void turns(int places, int quarter) {
        one_.cosine.resize(size_t(places + 1) * quarter), one_.sine.resize(size_t(places + 1) * quarter);
        for (int at = 0; at <= places; ++at)
            for (int i = 0; i < quarter; ++i) {
                const float angle = float(at) * float(std::pow(10000.0, -double(i) / quarter));
                one_.cosine[size_t(at) * quarter + i] = std::cos(angle);
                one_.sine[size_t(at) * quarter + i] = std::sin(angle);
            }
    }

    void lay_out(const std::vector<Numbers>& places, int64_t numbers) {
        const study::Batch& batch = one_.batch;
        const int64_t d = one_.width, rows = int64_t(batch.row_tokens.size());
        const auto there = [&](int64_t at, int64_t size) { must(0 <= at && at + size <= numbers, BEYOND); };
        must(places.size() == linears_.size(), "there is a place for each projection");
        for (size_t at = 0; at < places.size(); ++at) {
            study::Linear& one = *linears_[at];
            must(places[at].size() == 5, "a projection has five places");
            one.places = {places[at][0], places[at][1], places[at][2], places[at][3], places[at][4]};
            if (!one.calibrated()) continue;
            there(one.places.a, int64_t(batch.rank) * one.in), there(one.places.b, int64_t(batch.rank) * one.out);
            if (one.places.scale >= 0) there(one.places.scale, one.out / one.shared);
            if (one.places.shift >= 0) there(one.places.shift, one.out);
            if (one.places.hidden >= 0) there(one.places.hidden, one.in);
        }
        there(batch.token_at, batch.tokens * d), there(batch.vector_at, d), there(batch.rows_at, rows * d);
        there(batch.row_bias_at, rows), there(batch.other_bias_at, 1);
        const int most = batch.own_inputs.empty()
                             ? 0
                             : *std::max_element(batch.own_inputs.begin(), batch.own_inputs.end());
        must(std::all_of(batch.own_inputs.begin(), batch.own_inputs.end(), [](int r) { return r >= 0; }), BEYOND);
        if (batch.source_rows_at >= 0) there(batch.source_rows_at, most * d);
        for (size_t layer = batch.first_layer; layer < one_.encoder.size(); ++layer)
            must(one_.encoder[layer].self.q.calibrated(), "layers above the lowest are calibrated, too");
    }

    static constexpr const char* BEYOND = "a place lies beyond the calibration's numbers";
};

}  // namespace

PYBIND11_MODULE(_study, module) {
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const study::Body* body : bodies()) names.push_back(body->name);
        return names;
    });
    py::class_<Learner>(module, "Learner")
        .def(py::init<int, int, int, int, int, std::vector<FloatArray>, const std::string&>())
        .def_property_readonly("instructions", &Learner::instructions)
        .def("encode", &Learner::encode)
        .def("read", &Learner::read)
        .def("said", &Learner::said)
        .def("gradients", &Learner::gradients);
}
