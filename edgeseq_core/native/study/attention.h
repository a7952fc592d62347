// Softmax attention of rows that lie one after the other, and its way back.
//
// Included into a namespace of each set of instructions.

constexpr float NOT_SEEN = -1e30f;

// Keys or values of one row and head, `front` shared ones first: as [S, C] and turned over, [C, S padded].
struct Sight {
    Floats rows, columns;
    int seen = 0, padded = 0;

    void read(const float* front, int fronts, const float* own, int owns, int width, int at, int head) {
        seen = fronts + owns, padded = (seen + LANES - 1) / LANES * LANES;
        rows.resize(size_t(seen) * head);
        columns.assign(size_t(head) * padded, 0.0f);
        for (int s = 0; s < seen; ++s) {
            const float* from = s < fronts ? front + size_t(s) * width : own + size_t(s - fronts) * width;
            for (int c = 0; c < head; ++c)
                rows[size_t(s) * head + c] = columns[size_t(c) * padded + s] = from[at + c];
        }
    }
};

// out [R, n] = a [R rows, stride] b [k, n], n whole lanes, for R rows at once.
template <int R>
inline void few(const float* a, size_t stride, int k, const float* b, int n, float* out, size_t out_stride,
                bool add) {
    for (int at = 0; at < n; at += LANES) {
        Lanes sums[R];
        for (int r = 0; r < R; ++r) sums[r] = add ? load(out + r * out_stride + at) : Lanes{};
        for (int i = 0; i < k; ++i) {
            const Lanes numbers = load(b + size_t(i) * n + at);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sums[r] += all(a[r * stride + i]) * numbers;
        }
        for (int r = 0; r < R; ++r) store(out + r * out_stride + at, sums[r]);
    }
}

inline void small(const float* a, size_t stride, int rows, int k, const float* b, int n, float* out,
                  size_t out_stride, bool add = false) {
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        few<4>(a + r * stride, stride, k, b, n, out + r * out_stride, out_stride, add);
    for (; r < rows; ++r) few<1>(a + r * stride, stride, k, b, n, out + r * out_stride, out_stride, add);
}

struct Shared {  // keys and values that stand in front of every row's own, without a place
    const float *keys = nullptr, *values = nullptr, *scores = nullptr;
    float *d_keys = nullptr, *d_values = nullptr;
    int count = 0;
};

// Softmax attention of each row's queries to its keys (after the shared ones), or up to itself.
inline void attend(Study& study, Attention& of, const Rows& asking, const Rows& asked, const Shared& front,
                   const float* keys, const float* values, bool causal, float* out) {
    const int head = study.heads_width, width = of.q.out, width_kv = of.k.out;
    const int together = width / width_kv;  // heads that share one of keys and values
    const float scale = 1.0f / std::sqrt(float(head));
    static thread_local Sight key, value;
    of.at.resize(asking.count());
    size_t numbers = 0;
    for (int b = 0; b < asking.count(); ++b) {
        const int seen = front.count + asked.start[b + 1] - asked.start[b];
        of.at[b] = numbers;
        numbers += size_t(width / head) * (asking.start[b + 1] - asking.start[b]) *
                   ((seen + LANES - 1) / LANES * LANES);
    }
    float* all_shares = sized(of.shares, numbers);
    for (int b = 0; b < asking.count(); ++b) {
        const int first = asking.start[b], length = asking.start[b + 1] - first;
        const int origin = asked.start[b], owns = asked.start[b + 1] - origin;
        float* share = all_shares + of.at[b];
        for (int g = 0; g < width_kv; g += head) {
            key.read(front.keys, front.count, keys + size_t(origin) * width_kv, owns, width_kv, g, head);
            value.read(front.values, front.count, values + size_t(origin) * width_kv, owns, width_kv, g,
                       head);
            for (int h = g * together; h < (g + head) * together; h += head) {
                const float* q = of.queries.data() + size_t(first) * width + h;
                small(q, width, length, head, key.columns.data(), key.padded, share, key.padded);
                for (int t = 0; t < length; ++t) {
                    float* row = share + size_t(t) * key.padded;
                    const int seen = causal ? t + 1 : key.seen;
                    for (int s = 0; s < seen; ++s)
                        row[s] = row[s] * scale + (s < front.count ? front.scores[s] : 0.0f);
                    for (int s = seen; s < key.padded; ++s) row[s] = NOT_SEEN;
                    Lanes most = load(row);
                    for (int s = LANES; s < key.padded; s += LANES) most = larger(most, load(row + s));
                    const float top = largest(most);
                    Lanes total{};
                    for (int s = 0; s < key.padded; s += LANES) {
                        const Lanes power = exponential(load(row + s) - top);
                        store(row + s, power);
                        total += power;
                    }
                    const float whole = 1.0f / sum(total);
                    for (int s = 0; s < key.padded; s += LANES) store(row + s, load(row + s) * whole);
                }
                small(share, key.padded, length, key.seen, value.rows.data(), head,
                      out + size_t(first) * width + h, width);
                share += size_t(length) * key.padded;
            }
        }
    }
}

// From d_out to gradients of queries, keys and values, which are added to d_keys and d_values.
inline void attend_back(Study& study, const Attention& of, const Rows& asking, const Rows& asked,
                        const Shared& front, const float* keys, const float* values, const float* d_out,
                        float* d_queries, float* d_keys, float* d_values) {
    const int head = study.heads_width, width = of.q.out, width_kv = of.k.out;
    const int together = width / width_kv;
    const float scale = 1.0f / std::sqrt(float(head));
    static thread_local Sight key, value;
    static thread_local Floats d_shares, over, d_key, d_value;
    for (int b = 0; b < asking.count(); ++b) {
        const int first = asking.start[b], length = asking.start[b + 1] - first;
        const int origin = asked.start[b], owns = asked.start[b + 1] - origin;
        const float* share = of.shares.data() + of.at[b];
        for (int g = 0; g < width_kv; g += head) {
            key.read(front.keys, front.count, keys + size_t(origin) * width_kv, owns, width_kv, g, head);
            value.read(front.values, front.count, values + size_t(origin) * width_kv, owns, width_kv, g,
                       head);
            d_key.assign(size_t(key.seen) * head, 0.0f), d_value.assign(size_t(key.seen) * head, 0.0f);
            for (int h = g * together; h < (g + head) * together; h += head) {
                const float* d = d_out + size_t(first) * width + h;
                const float* q = of.queries.data() + size_t(first) * width + h;
                float* d_share = sized(d_shares, size_t(length) * key.padded);
                small(d, width, length, head, value.columns.data(), key.padded, d_share, key.padded);
                for (int t = 0; t < length; ++t) {
                    const float* p = share + size_t(t) * key.padded;
                    float* to = d_share + size_t(t) * key.padded;
                    Lanes dot{};
                    for (int s = 0; s < key.padded; s += LANES) dot += load(p + s) * load(to + s);
                    const float mean = sum(dot);
                    for (int s = 0; s < key.padded; s += LANES)
                        store(to + s, load(p + s) * (load(to + s) - mean) * scale);
                }
                small(d_share, key.padded, length, key.seen, key.rows.data(), head,
                      d_queries + size_t(first) * width + h, width);
                // Queries and what came back, each as [T, C]; shares as [S, T], to be read by rows.
                float* packed = sized(over, size_t(length) * (2 * head + 2 * key.seen));
                float *rows_q = packed, *rows_d = packed + size_t(length) * head;
                float *turned = rows_d + size_t(length) * head, *d_turned = turned + size_t(length) * key.seen;
                for (int t = 0; t < length; ++t) {
                    std::copy(q + size_t(t) * width, q + size_t(t) * width + head, rows_q + size_t(t) * head);
                    std::copy(d + size_t(t) * width, d + size_t(t) * width + head, rows_d + size_t(t) * head);
                    for (int s = 0; s < key.seen; ++s) {
                        turned[size_t(s) * length + t] = share[size_t(t) * key.padded + s];
                        d_turned[size_t(s) * length + t] = d_share[size_t(t) * key.padded + s];
                    }
                }
                small(d_turned, length, key.seen, length, rows_q, head, d_key.data(), head, true);
                small(turned, length, key.seen, length, rows_d, head, d_value.data(), head, true);
                share += size_t(length) * key.padded;
            }
            for (int s = 0; s < key.seen; ++s) {
                const bool shared = s < front.count;
                const size_t at = shared ? size_t(s) * width_kv + g
                                         : size_t(origin + s - front.count) * width_kv + g;
                float *to_key = (shared ? front.d_keys : d_keys) + at;
                float *to_value = (shared ? front.d_values : d_values) + at;
                for (int c = 0; c < head; ++c) {
                    to_key[c] += d_key[size_t(s) * head + c];
                    to_value[c] += d_value[size_t(s) * head + c];
                }
            }
        }
    }
}
