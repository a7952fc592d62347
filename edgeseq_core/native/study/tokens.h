// What is done to tokens one by one: calibrated projections, norms, turns; and each way back.
//
// Included into a namespace of each set of instructions.

constexpr float EPSILON = 1e-6f;

inline float away_from_zero(float factor) {
    if (factor >= 0) return factor < 1e-6f ? 1e-6f : factor;
    return factor > -1e-6f ? -1e-6f : factor;
}

inline float* sized(Floats& of, size_t numbers) {
    of.resize(numbers);
    return of.data();
}

// --- projections -----------------------------------------------------------------------------------------

// Folds a calibration into its matrix: (1 + s) (W + B A) (1 + h), and the same factors into B and A.
inline void fold(Study& study, Linear& one) {
    if (!one.calibrated()) {
        if (!one.folded) {
            pack(one.forward, one.weight, one.in, one.out, 1, one.in);
            one.full_bias.assign(one.bias, one.bias + one.out);
            one.folded = true;
        }
        return;
    }
    one.folded = false;
    const float* theta = study.theta.data();
    const Places at = one.places;
    const int rank = study.batch.rank, blocks = (rank + EIGHT - 1) / EIGHT;
    float* full = sized(study.scratch[0], size_t(one.out) * one.in);
    std::copy(one.weight, one.weight + size_t(one.out) * one.in, full);
    sized(one.full_bias, one.out);
    one.a.assign(size_t(blocks) * one.in * EIGHT, 0.0f);
    one.b.assign(size_t(blocks) * one.out * EIGHT, 0.0f);
    const float *a = theta + at.a, *b = theta + at.b;
    for (int o = 0; o < one.out; ++o) {
        float* row = full + size_t(o) * one.in;
        const float s = at.scale < 0 ? 1.0f : 1.0f + theta[at.scale + o / one.shared];
        for (int r = 0; r < rank; ++r) {
            const float factor = b[size_t(o) * rank + r];
            const float* of_a = a + size_t(r) * one.in;
            for (int i = 0; i < one.in; ++i) row[i] += factor * of_a[i];
            one.b[(size_t(r / EIGHT) * one.out + o) * EIGHT + r % EIGHT] = factor * s;
        }
        for (int i = 0; i < one.in; ++i) row[i] *= s;
        one.full_bias[o] = one.bias[o] * s + (at.shift < 0 ? 0.0f : theta[at.shift + o]);
    }
    for (int i = 0; i < one.in; ++i) {
        const float h = at.hidden < 0 ? 1.0f : 1.0f + theta[at.hidden + i];
        if (at.hidden >= 0)
            for (int o = 0; o < one.out; ++o) full[size_t(o) * one.in + i] *= h;
        for (int r = 0; r < rank; ++r)
            one.a[(size_t(r / EIGHT) * one.in + i) * EIGHT + r % EIGHT] = a[size_t(r) * one.in + i] * h;
    }
    pack(one.forward, full, one.in, one.out, 1, one.in);
    pack(one.backward, full, one.out, one.in, one.in, 1);
}

inline void project(const Linear& one, const float* x, int tokens, float* y) {
    multiply(x, tokens, one.forward, one.full_bias.data(), y, one.out, false);
}

// Gradients of a projection that read x and said y, and (where d_x is given) what flows on to x.
inline void project_back(Study& study, const Linear& one, const float* x, const float* y, const float* d_y,
                         int tokens, float* d_x, bool add) {
    if (d_x) multiply(d_y, tokens, one.backward, nullptr, d_x, one.in, add);
    const float* theta = study.theta.data();
    float* gradient = study.gradient.data();
    const Places at = one.places;
    const int rank = study.batch.rank;
    float* u = sized(study.scratch[1], size_t(tokens) * EIGHT);
    float* thin_sums = sized(study.scratch[2], size_t(EIGHT) * (one.in > one.out ? one.in : one.out));
    for (int first = 0; first < rank; first += EIGHT) {
        const int numbers = rank - first < EIGHT ? rank - first : EIGHT;
        thin(x, tokens, one.in, one.a.data() + size_t(first) * one.in, u);
        outer(u, d_y, tokens, one.out, thin_sums);
        for (int o = 0; o < one.out; ++o) {
            const float s = at.scale < 0 ? 1.0f : 1.0f + theta[at.scale + o / one.shared];
            for (int r = 0; r < numbers; ++r)
                gradient[at.b + size_t(o) * rank + first + r] = thin_sums[size_t(r) * one.out + o] * s;
        }
        thin(d_y, tokens, one.out, one.b.data() + size_t(first) * one.out, u);
        outer(u, x, tokens, one.in, thin_sums);
        for (int i = 0; i < one.in; ++i) {
            const float h = at.hidden < 0 ? 1.0f : 1.0f + theta[at.hidden + i];
            for (int r = 0; r < numbers; ++r)
                gradient[at.a + size_t(first + r) * one.in + i] = thin_sums[size_t(r) * one.in + i] * h;
        }
    }
    float* sums = sized(study.scratch[2], one.in > one.out ? one.in : one.out);
    if (at.shift >= 0) column_sums(d_y, nullptr, tokens, one.out, gradient + at.shift);
    if (at.scale >= 0) {
        // y = s z + t, so sum(d_y z) = (sum(d_y y) - t sum(d_y)) / s.
        column_sums(d_y, y, tokens, one.out, sums);
        for (int o = 0; o < one.out; ++o) {
            const int place = o / one.shared;
            const float s = away_from_zero(1.0f + theta[at.scale + place]);
            const float off = at.shift < 0 ? 0.0f : theta[at.shift + o] * gradient[at.shift + o];
            gradient[at.scale + place] += (sums[o] - off) / s;
        }
    }
    if (at.hidden >= 0) {
        column_sums(d_x, x, tokens, one.in, sums);
        for (int i = 0; i < one.in; ++i)
            gradient[at.hidden + i] = sums[i] / away_from_zero(1.0f + theta[at.hidden + i]);
    }
}

// --- norms, positions ------------------------------------------------------------------------------------

// RMSNorm of x [N, D]; keeps what its backward pass needs.
inline void normalise(Norm& norm, const float* x, int tokens, int width, float* out) {
    norm.x.assign(x, x + size_t(tokens) * width);
    sized(norm.factor, tokens);
    for (int n = 0; n < tokens; ++n, x += width, out += width) {
        Lanes squares{};
        for (int i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
        const float factor = 1.0f / std::sqrt(sum(squares) / width + EPSILON);
        norm.factor[n] = factor;
        for (int i = 0; i < width; i += LANES) store(out + i, load(x + i) * factor * load(norm.gain + i));
    }
}

// d_x += what flows through the norm.
inline void normalise_back(const Norm& norm, const float* d_out, int tokens, int width, float* d_x) {
    const float* x = norm.x.data();
    for (int n = 0; n < tokens; ++n, x += width, d_out += width, d_x += width) {
        const float factor = norm.factor[n];
        Lanes dot{};
        for (int i = 0; i < width; i += LANES) dot += load(d_out + i) * load(norm.gain + i) * load(x + i);
        const float back = sum(dot) * factor * factor * factor / width;
        for (int i = 0; i < width; i += LANES) {
            const Lanes d = load(d_out + i) * load(norm.gain + i);
            store(d_x + i, load(d_x + i) + d * factor - load(x + i) * back);
        }
    }
}

// Turns the first half of each head to its token's place; `way` -1 turns back.
inline void turn(const Study& study, const Rows& rows, float* x, int width, float way) {
    const int head = study.heads_width, quarter = head / 4;
    for (int n = 0; n < rows.tokens(); ++n) {
        const float* cosine = study.cosine.data() + size_t(rows.place[n]) * quarter;
        const float* sine = study.sine.data() + size_t(rows.place[n]) * quarter;
        for (float* at = x + size_t(n) * width; at < x + size_t(n + 1) * width; at += head)
            for (int i = 0; i < quarter; ++i) {
                const float a = at[i], b = at[quarter + i], s = way * sine[i];
                at[i] = a * cosine[i] - b * s;
                at[quarter + i] = a * s + b * cosine[i];
            }
    }
}
