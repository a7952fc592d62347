// One task's learning step: forward over real tokens alone, losses, and gradients of the calibration alone.
//
// Included into a namespace of each set of instructions.  The formulas are those of `edgeseq_core.model`
// (`EdgeFormer`, `LearningWeights`), which the tests hold this to.

// --- sub-layers ------------------------------------------------------------------------------------------

inline void fold(Study& study, Attention& of) {
    for (Linear* one : {&of.q, &of.k, &of.v, &of.o}) fold(study, *one);
}

inline void fold(Study& study, Feed& of) {
    for (Linear* one : {&of.up, &of.down}) fold(study, *one);
}

inline void add(const float* from, size_t numbers, float* to) {
    for (size_t i = 0; i < numbers; ++i) to[i] += from[i];
}

// x += attention of the tokens among themselves.
inline void look(Study& study, Attention& of, const Rows& rows, bool causal, float* x) {
    const int tokens = rows.tokens(), d = study.width;
    float* read = sized(of.read, size_t(tokens) * d);
    normalise(of.norm, x, tokens, d, read);
    project(of.q, read, tokens, sized(of.raw_queries, size_t(tokens) * of.q.out));
    project(of.k, read, tokens, sized(of.raw_keys, size_t(tokens) * of.k.out));
    project(of.v, read, tokens, sized(of.values, size_t(tokens) * of.v.out));
    of.queries = of.raw_queries, of.keys = of.raw_keys;
    turn(study, rows, of.queries.data(), of.q.out, 1);
    turn(study, rows, of.keys.data(), of.k.out, 1);
    attend(study, of, rows, rows, {}, of.keys.data(), of.values.data(), causal,
           sized(of.mixed, size_t(tokens) * of.q.out));
    project(of.o, of.mixed.data(), tokens, sized(of.said, size_t(tokens) * d));
    add(of.said.data(), size_t(tokens) * d, x);
}

// d_x becomes the gradient before the sub-layer; nothing flows on below the lowest calibrated one.
inline void look_back(Study& study, Attention& of, const Rows& rows, bool flows_on, float* d_x) {
    const int tokens = rows.tokens(), d = study.width;
    float* d_mixed = sized(study.scratch[3], size_t(tokens) * of.q.out);
    project_back(study, of.o, of.mixed.data(), of.said.data(), d_x, tokens, d_mixed, false);
    float* d_q = sized(study.scratch[4], size_t(tokens) * of.q.out);
    Floats &d_k = study.scratch[5], &d_v = study.scratch[6];
    d_k.assign(size_t(tokens) * of.k.out, 0.0f), d_v.assign(size_t(tokens) * of.v.out, 0.0f);
    attend_back(study, of, rows, rows, {}, of.keys.data(), of.values.data(), d_mixed, d_q, d_k.data(),
                d_v.data());
    turn(study, rows, d_q, of.q.out, -1);
    turn(study, rows, d_k.data(), of.k.out, -1);
    float* d_read = flows_on ? sized(study.scratch[7], size_t(tokens) * d) : nullptr;
    project_back(study, of.q, of.read.data(), of.raw_queries.data(), d_q, tokens, d_read, false);
    project_back(study, of.k, of.read.data(), of.raw_keys.data(), d_k.data(), tokens, d_read, true);
    project_back(study, of.v, of.read.data(), of.values.data(), d_v.data(), tokens, d_read, true);
    if (flows_on) normalise_back(of.norm, d_read, tokens, d, d_x);
}

inline void feed(Study& study, Feed& of, int tokens, float* x) {
    if (!of.up.out) return;
    const int d = study.width;
    float* read = sized(of.read, size_t(tokens) * d);
    normalise(of.norm, x, tokens, d, read);
    float* hidden = sized(of.hidden, size_t(tokens) * of.up.out);
    project(of.up, read, tokens, hidden);
    for (size_t i = 0; i < of.hidden.size(); ++i) hidden[i] = hidden[i] > 0 ? hidden[i] : 0.0f;
    project(of.down, hidden, tokens, sized(of.said, size_t(tokens) * d));
    add(of.said.data(), size_t(tokens) * d, x);
}

inline void feed_back(Study& study, Feed& of, int tokens, float* d_x) {
    if (!of.up.out) return;
    const int d = study.width;
    float* d_hidden = sized(study.scratch[3], size_t(tokens) * of.up.out);
    project_back(study, of.down, of.hidden.data(), of.said.data(), d_x, tokens, d_hidden, false);
    for (size_t i = 0; i < of.hidden.size(); ++i) d_hidden[i] = of.hidden[i] > 0 ? d_hidden[i] : 0.0f;
    float* d_read = sized(study.scratch[7], size_t(tokens) * d);
    project_back(study, of.up, of.read.data(), nullptr, d_hidden, tokens, d_read, false);
    normalise_back(of.norm, d_read, tokens, d, d_x);
}

// The source as a decoder layer sees it: task tokens in front, [K + N, ...].
inline Shared in_front(const Study& study, Attention& of) {
    Shared front;
    front.count = study.batch.tokens;
    front.keys = of.keys.data(), front.values = of.values.data(), front.scores = study.batch.task_scores.data();
    return front;
}

inline void remember(Study& study, Attention& of) {
    const Batch& batch = study.batch;
    const int tokens = batch.tokens + batch.source.tokens();
    project(of.k, study.joined.data(), tokens, sized(of.raw_keys, size_t(tokens) * of.k.out));
    project(of.v, study.joined.data(), tokens, sized(of.values, size_t(tokens) * of.v.out));
    of.keys = of.raw_keys;
    turn(study, batch.source, of.keys.data() + size_t(batch.tokens) * of.k.out, of.k.out, 1);
}

inline void consult(Study& study, Attention& of, float* x) {
    const Batch& batch = study.batch;
    const int tokens = batch.target.tokens(), d = study.width;
    float* read = sized(of.read, size_t(tokens) * d);
    normalise(of.norm, x, tokens, d, read);
    project(of.q, read, tokens, sized(of.raw_queries, size_t(tokens) * of.q.out));
    of.queries = of.raw_queries;
    turn(study, batch.target, of.queries.data(), of.q.out, 1);
    const size_t after = size_t(batch.tokens) * of.k.out;
    attend(study, of, batch.target, batch.source, in_front(study, of), of.keys.data() + after,
           of.values.data() + after, false, sized(of.mixed, size_t(tokens) * of.q.out));
    project(of.o, of.mixed.data(), tokens, sized(of.said, size_t(tokens) * d));
    add(of.said.data(), size_t(tokens) * d, x);
}

// Adds to d_joined [K + N, D], what flows to the source and the task tokens.
inline void consult_back(Study& study, Attention& of, float* d_x, float* d_joined, bool first) {
    const Batch& batch = study.batch;
    const int tokens = batch.target.tokens(), d = study.width, joined = batch.tokens + batch.source.tokens();
    float* d_mixed = sized(study.scratch[3], size_t(tokens) * of.q.out);
    project_back(study, of.o, of.mixed.data(), of.said.data(), d_x, tokens, d_mixed, false);
    float* d_q = sized(study.scratch[4], size_t(tokens) * of.q.out);
    Floats &d_k = study.scratch[5], &d_v = study.scratch[6];
    d_k.assign(size_t(joined) * of.k.out, 0.0f), d_v.assign(size_t(joined) * of.v.out, 0.0f);
    Shared front = in_front(study, of);
    front.d_keys = d_k.data(), front.d_values = d_v.data();
    const size_t after = size_t(batch.tokens) * of.k.out;
    attend_back(study, of, batch.target, batch.source, front, of.keys.data() + after, of.values.data() + after,
                d_mixed, d_q, d_k.data() + after, d_v.data() + after);
    turn(study, batch.target, d_q, of.q.out, -1);
    turn(study, batch.source, d_k.data() + after, of.k.out, -1);
    float* d_read = sized(study.scratch[7], size_t(tokens) * d);
    project_back(study, of.q, of.read.data(), of.raw_queries.data(), d_q, tokens, d_read, false);
    normalise_back(of.norm, d_read, tokens, d, d_x);
    project_back(study, of.k, study.joined.data(), of.raw_keys.data(), d_k.data(), joined, d_joined, !first);
    project_back(study, of.v, study.joined.data(), of.values.data(), d_v.data(), joined, d_joined, true);
}

// --- the output ------------------------------------------------------------------------------------------

// The table of all symbols with the task's own rows in it, and the bias.
inline void write_table(Study& study) {
    const Batch& batch = study.batch;
    const int d = study.width, symbols = batch.symbols;
    const float* theta = study.theta.data();
    study.table.assign(batch.known, batch.known + size_t(symbols) * d);
    study.table_bias.assign(batch.known_bias, batch.known_bias + symbols);
    const float other = theta[batch.other_bias_at];
    for (int v = 0; v < symbols; ++v) study.table_bias[v] += other;
    for (size_t r = 0; r < batch.row_tokens.size(); ++r) {
        const size_t token = size_t(batch.row_tokens[r]);
        add(theta + batch.rows_at + r * d, d, study.table.data() + token * d);
        study.table_bias[token] += theta[batch.row_bias_at + r] - other;
    }
    pack(study.scores, study.table.data(), d, symbols, 1, d);
    pack(study.back_scores, study.table.data(), symbols, d, d, 1);
}

// Scores become probabilities in place; losses of each token.
inline void judge(Study& study) {
    const Batch& batch = study.batch;
    const int tokens = batch.target.tokens(), symbols = batch.symbols;
    const int padded = study.symbols_padded = (symbols + LANES - 1) / LANES * LANES;
    float* scores = sized(study.shares, size_t(tokens) * padded);
    multiply(study.hidden.data(), tokens, study.scores, study.table_bias.data(), scores, padded, false);
    sized(study.losses, tokens), sized(study.plain, tokens), study.right.resize(tokens);
    for (int n = 0; n < tokens; ++n) {
        float* row = scores + size_t(n) * padded;
        const float wanted = row[batch.wanted[n]];
        float total = 0;
        for (int v = 0; v < symbols; ++v) total += row[v];
        for (int v = symbols; v < padded; ++v) row[v] = NOT_SEEN;
        Lanes most = load(row);
        for (int v = LANES; v < padded; v += LANES) most = larger(most, load(row + v));
        const float top = largest(most);
        Lanes powers{};
        for (int v = 0; v < padded; v += LANES) {
            const Lanes power = exponential(load(row + v) - top);
            store(row + v, power);
            powers += power;
        }
        const float whole = sum(powers), log_whole = top + std::log(whole);
        for (int v = 0; v < padded; v += LANES) store(row + v, load(row + v) * (1.0f / whole));
        study.plain[n] = log_whole - wanted;
        study.losses[n] = (1 - batch.smoothing) * study.plain[n] +
                          batch.smoothing * (log_whole - total / symbols);
        study.right[n] = wanted >= top;
    }
}

// Adds what a teacher's word of a token asks of its scores: the gradient of the divergence over its symbols
// and the rest (`divergence` in edgeseq_core/model/lessons.py).  `row` holds probabilities q, and becomes
// pull * (q - even) as where nobody teaches; with the share t of the teacher, symbols get q - t, all others
// q (1 - t_rest / q_rest).
inline void follow(const Taught& taught, int n, int symbols, float even, float pull, float* row) {
    const int* ids = taught.ids + size_t(n) * taught.k;
    const float* shares = taught.shares + size_t(n) * taught.k;
    float said = 0, own = 0;
    float kept[MOST_SAID];
    for (int i = 0; i < taught.k; ++i) said += shares[i], own += kept[i] = row[ids[i]];
    const float rest = said < 1 ? 1 - said : 0, others = 1 - own < LEAST_SHARE ? LEAST_SHARE : 1 - own;
    const float bound = pull * taught.weight, outside = bound * (1 - rest / others);
    for (int v = 0; v < symbols; ++v) row[v] = (row[v] - even) * pull + row[v] * outside;
    for (int i = 0; i < taught.k; ++i)
        row[ids[i]] = (kept[i] - even) * pull + bound * (kept[i] - shares[i]);
}

// From the pull of each token to d_hidden [N, D]; gradients of own rows and biases.
inline void judge_back(Study& study, const float* pulls, float* d_hidden) {
    const Batch& batch = study.batch;
    const int tokens = batch.target.tokens(), symbols = batch.symbols, d = study.width;
    const int padded = study.symbols_padded, rows = int(batch.row_tokens.size());
    float* d_scores = study.shares.data();
    const float even = batch.smoothing / symbols;
    for (int n = 0; n < tokens; ++n) {
        float* row = d_scores + size_t(n) * padded;
        if (study.taught.of(n))
            follow(study.taught, n, symbols, even, pulls[n], row);
        else
            for (int v = 0; v < symbols; ++v) row[v] = (row[v] - even) * pulls[n];
        row[batch.wanted[n]] -= (1 - batch.smoothing) * pulls[n];
    }
    // The product reads rows without gaps.
    Floats& tight = study.scratch[3];
    if (padded != symbols) {
        sized(tight, size_t(tokens) * symbols);
        for (int n = 0; n < tokens; ++n)
            std::copy(d_scores + size_t(n) * padded, d_scores + size_t(n) * padded + symbols,
                      tight.data() + size_t(n) * symbols);
        d_scores = tight.data();
    }
    multiply(d_scores, tokens, study.back_scores, nullptr, d_hidden, d, false);
    float* gradient = study.gradient.data();
    float other = 0;
    for (int first = 0; first < rows; first += EIGHT) {
        const int numbers = rows - first < EIGHT ? rows - first : EIGHT;
        float* u = sized(study.scratch[1], size_t(tokens) * EIGHT);
        float sums[EIGHT] = {};
        for (int n = 0; n < tokens; ++n)
            for (int r = 0; r < EIGHT; ++r) {
                const float one =
                    r < numbers ? d_scores[size_t(n) * symbols + size_t(batch.row_tokens[first + r])] : 0.0f;
                u[size_t(n) * EIGHT + r] = one, sums[r] += one;
            }
        float* of_rows = sized(study.scratch[2], size_t(EIGHT) * d);
        outer(u, study.hidden.data(), tokens, d, of_rows);
        std::copy(of_rows, of_rows + size_t(numbers) * d, gradient + batch.rows_at + size_t(first) * d);
        for (int r = 0; r < numbers; ++r) gradient[batch.row_bias_at + first + r] = sums[r], other -= sums[r];
    }
    gradient[batch.other_bias_at] = other;  // all scores' gradients sum to nothing
}

// --- a batch's way ---------------------------------------------------------------------------------------

void encode(Study& study, const Rows& rows, float* x, int first, int last) {
    for (int layer = first; layer < last; ++layer) {
        EncoderLayer& of = study.encoder[layer];
        fold(study, of.self), fold(study, of.feed);
        look(study, of.self, rows, false, x);
        feed(study, of.feed, rows.tokens(), x);
    }
}

void read(Study& study) {
    const Batch& batch = study.batch;
    const int d = study.width, sources = batch.source.tokens(), targets = batch.target.tokens();
    const float *theta = study.theta.data(), root = std::sqrt(float(d));
    study.stream.assign(batch.states, batch.states + size_t(sources) * d);
    if (batch.source_rows_at >= 0)
        for (int n = 0; n < sources; ++n)
            if (const int row = batch.own_inputs[n])
                for (int i = 0; i < d; ++i)
                    study.stream[size_t(n) * d + i] += theta[batch.source_rows_at + size_t(row - 1) * d + i] * root;
    encode(study, batch.source, study.stream.data(), batch.first_layer, int(study.encoder.size()));
    sized(study.joined, size_t(batch.tokens + sources) * d);
    std::copy(theta + batch.token_at, theta + batch.token_at + size_t(batch.tokens) * d, study.joined.data());
    normalise(study.encoder_out, study.stream.data(), sources, d, study.joined.data() + size_t(batch.tokens) * d);
    write_table(study);
    float* x = sized(study.stream, size_t(targets) * d);
    for (int n = 0; n < targets; ++n)
        for (int i = 0; i < d; ++i)
            x[size_t(n) * d + i] =
                study.table[size_t(batch.given[n]) * d + i] * root + theta[batch.vector_at + i];
    for (DecoderLayer& layer : study.decoder) {
        fold(study, layer.self), fold(study, layer.first), fold(study, layer.cross), fold(study, layer.second);
        look(study, layer.self, batch.target, true, x);
        feed(study, layer.first, targets, x);
        remember(study, layer.cross);
        consult(study, layer.cross, x);
        feed(study, layer.second, targets, x);
    }
    normalise(study.decoder_out, x, targets, d, sized(study.hidden, size_t(targets) * d));
    judge(study);
    study.read = true;
}

void teach(Study& study, const float* pull) {
    const Batch& batch = study.batch;
    const int d = study.width, sources = batch.source.tokens(), targets = batch.target.tokens();
    const float root = std::sqrt(float(d));
    study.gradient.assign(study.theta.size(), 0.0f);
    float* gradient = study.gradient.data();
    Floats pulls(targets), d_out(size_t(targets) * d), d_x(size_t(targets) * d, 0.0f);
    for (int b = 0; b < batch.target.count(); ++b)
        std::fill(pulls.begin() + batch.target.start[b], pulls.begin() + batch.target.start[b + 1], pull[b]);
    judge_back(study, pulls.data(), d_out.data());
    normalise_back(study.decoder_out, d_out.data(), targets, d, d_x.data());
    Floats d_joined(size_t(batch.tokens + sources) * d);
    for (size_t at = study.decoder.size(); at-- > 0;) {
        DecoderLayer& layer = study.decoder[at];
        feed_back(study, layer.second, targets, d_x.data());
        consult_back(study, layer.cross, d_x.data(), d_joined.data(), at + 1 == study.decoder.size());
        feed_back(study, layer.first, targets, d_x.data());
        look_back(study, layer.self, batch.target, true, d_x.data());
    }
    column_sums(d_x.data(), nullptr, targets, d, gradient + batch.vector_at);
    for (int n = 0; n < targets; ++n)
        if (const int row = batch.row_of[batch.given[n]]; row >= 0)
            for (int i = 0; i < d; ++i)
                gradient[batch.rows_at + size_t(row) * d + i] += d_x[size_t(n) * d + i] * root;
    std::copy(d_joined.begin(), d_joined.begin() + size_t(batch.tokens) * d, gradient + batch.token_at);
    d_x.assign(size_t(sources) * d, 0.0f);
    normalise_back(study.encoder_out, d_joined.data() + size_t(batch.tokens) * d, sources, d, d_x.data());
    const bool own_inputs = batch.source_rows_at >= 0;
    for (int layer = int(study.encoder.size()); layer-- > batch.first_layer;) {
        feed_back(study, study.encoder[layer].feed, sources, d_x.data());
        look_back(study, study.encoder[layer].self, batch.source, own_inputs || layer > batch.first_layer,
                  d_x.data());
    }
    if (own_inputs)
        for (int n = 0; n < sources; ++n)
            if (const int row = batch.own_inputs[n])
                for (int i = 0; i < d; ++i)
                    gradient[batch.source_rows_at + size_t(row - 1) * d + i] += d_x[size_t(n) * d + i] * root;
    study.read = false;
}
