// What a learning step works on: a frozen base, one task's calibration, and what a batch left behind.
//
// Plain data; the work is in network.h, compiled once a set of instructions.
// Letters: D width of the model, N tokens of a batch laid one after the other without padding.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace study {

using Floats = std::vector<float>;

constexpr int MOST_SAID = 64;         // symbols of a token that a teacher names
constexpr float LEAST_SHARE = 1e-6f;  // probability; `LEAST` in edgeseq_core/model/lessons.py

// A matrix in the order in which a product reads it.
struct Panels {
    int k = 0, n = 0;
    Floats data;
};

// Where a projection's calibration lies in the vector of all its numbers; -1: there is none.
struct Places {
    int64_t a = -1, b = -1, scale = -1, shift = -1, hidden = -1;
};

// A projection: the base's matrix [out, in], and what the calibration makes of it.
struct Linear {
    int in = 0, out = 0;
    const float *weight = nullptr, *bias = nullptr;
    int shared = 1;  // outputs that share a number of the scale: a head's queries
    Places places;
    Panels forward, backward;
    Floats full_bias, a, b;  // a, b: [rank / 8][in or out][8], factors folded in
    bool folded = false;     // a base's own: packed once

    bool calibrated() const { return places.a >= 0; }
};

struct Norm {
    const float* gain = nullptr;
    Floats x, factor;  // what it read, and 1 / root mean square of each token
};

// One attention of a layer with what its backward pass needs.
struct Attention {
    Norm norm;
    Linear q, k, v, o;
    Floats read, queries, keys, values, raw_queries, raw_keys, shares, mixed, said;
    std::vector<size_t> at;  // where a row's shares begin
};

struct Feed {
    Linear up, down;
    Norm norm;
    Floats read, hidden, said;
};

struct EncoderLayer {
    Attention self;
    Feed feed;
};

struct DecoderLayer {
    Attention self, cross;
    Feed first, second;  // the same small FFN, calibrated twice
};

// Tokens of rows laid one after the other.
struct Rows {
    std::vector<int> start, place;  // [B + 1], and [N]: where a token stands in its row

    int count() const { return int(start.size()) - 1; }
    int tokens() const { return start.back(); }
};

// One batch of pairs, as Python hands it over; all pointers outlive `read`.
struct Batch {
    Rows source, target;
    const float* states = nullptr;    // [N, D], what the first calibrated layer reads
    std::vector<int> own_inputs;      // [N], 0 or 1 + the own row of a source's token
    std::vector<int> given, wanted;   // [N of targets]
    std::vector<int64_t> row_tokens;  // [R], the symbols that own rows are of
    std::vector<int> row_of;          // [V], or -1
    Floats task_scores;               // [K]
    const float* known = nullptr;     // [V, D], symbols before own rows
    const float* known_bias = nullptr;
    int symbols = 0, tokens = 0, rank = 0, first_layer = 0;
    int64_t token_at = -1, vector_at = -1, rows_at = -1, row_bias_at = -1, other_bias_at = -1;
    int64_t source_rows_at = -1;
    float smoothing = 0;
};

// What a teacher says of the batch's target tokens; both arrays outlive `teach`.
struct Taught {
    const int* ids = nullptr;      // [N, k], distinct symbols
    const float* shares = nullptr;  // [N, k], their probabilities; a first one below 0: nothing is said
    int k = 0;
    float weight = 0;  // of the divergence from it, beside the loss

    bool of(int n) const { return k > 0 && shares[size_t(n) * k] >= 0; }
};

struct Study {
    // the base
    int width = 0, heads_width = 0;
    std::vector<EncoderLayer> encoder;
    std::vector<DecoderLayer> decoder;
    Norm encoder_out, decoder_out;
    Floats cosine, sine;  // [places, quarter of a head]
    // of the batch in hand
    Batch batch;
    Taught taught;
    Floats theta, gradient;  // all numbers of the calibration
    Floats stream, memory, joined, table, table_bias, hidden, shares, losses, plain;
    Floats scratch[8];
    Panels scores, back_scores;
    std::vector<uint8_t> right;
    int symbols_padded = 0;
    bool read = false;  // a batch is there whose gradients were not asked for
};

struct Body {
    const char* name;
    // States [N, D] after encoder layers [first, last), in place; no calibration.
    void (*encode)(Study&, const Rows&, float* x, int first, int last);
    // Losses of the batch in hand.
    void (*read)(Study&);
    // Gradients of sum(pull * loss) over its pairs, pull [B], into `gradient`.
    void (*teach)(Study&, const float* pull);
};

// Those that the compiler could make; null where it could not.
const Body* avx512();
const Body* avx2();
const Body* plain();

}  // namespace study
