// Products of matrices: tokens [N, k] times a matrix packed once a step, and the thin ones of low-rank parts.
//
// Included into a namespace of each set of instructions.  Each number is one sum in the order of k, started
// from the bias or from what is there, so a token's bits do not depend on how many tokens there are.

constexpr int WIDE = 2 * LANES;

// Columns in panels of WIDE, zeros after the last: [n / WIDE][k][WIDE].
inline void pack(Panels& to, const float* from, int k, int n, int step_k, int step_n) {
    to.k = k, to.n = n;
    const int panels = (n + WIDE - 1) / WIDE;
    to.data.resize(size_t(panels) * k * WIDE);
    float* out = to.data.data();
    for (int p = 0; p < panels; ++p)
        for (int i = 0; i < k; ++i, out += WIDE)
            for (int j = 0; j < WIDE; ++j) {
                const int column = p * WIDE + j;
                out[j] = column < n ? from[size_t(i) * step_k + size_t(column) * step_n] : 0.0f;
            }
}

template <int R>
inline void block(const float* a, int stride_a, int k, const float* panel, const float* start, float* c,
                  int stride_c, int columns, bool add) {
    Lanes sums[R][2];
    float rest[WIDE];
    for (int r = 0; r < R; ++r) {
        const float* from = start;
        if (add && columns == WIDE) from = c + size_t(r) * stride_c;
        if (add && columns < WIDE) {
            for (int j = 0; j < WIDE; ++j) rest[j] = j < columns ? c[size_t(r) * stride_c + j] : 0.0f;
            from = rest;
        }
        sums[r][0] = load(from), sums[r][1] = load(from + LANES);
    }
    for (int i = 0; i < k; ++i, panel += WIDE) {
        const Lanes low = load(panel), high = load(panel + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const Lanes one = all(a[size_t(r) * stride_a + i]);
            sums[r][0] += one * low;
            sums[r][1] += one * high;
        }
    }
    for (int r = 0; r < R; ++r) {
        float* to = c + size_t(r) * stride_c;
        if (columns == WIDE) {
            store(to, sums[r][0]), store(to + LANES, sums[r][1]);
        } else {
            store(rest, sums[r][0]), store(rest + LANES, sums[r][1]);
            for (int j = 0; j < columns; ++j) to[j] = rest[j];
        }
    }
}

// c [rows, n] = a [rows, k] b + bias, or += where `add` is said.
inline void multiply(const float* a, int rows, const Panels& b, const float* bias, float* c, int stride_c,
                     bool add) {
    const int k = b.k;
    for (int at = 0; at < b.n; at += WIDE) {
        const float* panel = b.data.data() + size_t(at) * k;
        const int columns = b.n - at < WIDE ? b.n - at : WIDE;
        float start[WIDE] = {};
        if (bias)
            for (int j = 0; j < columns; ++j) start[j] = bias[at + j];
        int row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            block<ROWS>(a + size_t(row) * k, k, k, panel, start, c + size_t(row) * stride_c + at, stride_c,
                        columns, add);
        for (; row + 2 <= rows; row += 2)
            block<2>(a + size_t(row) * k, k, k, panel, start, c + size_t(row) * stride_c + at, stride_c,
                     columns, add);
        for (; row < rows; ++row)
            block<1>(a + size_t(row) * k, k, k, panel, start, c + size_t(row) * stride_c + at, stride_c,
                     columns, add);
    }
}

template <int R>
inline void thin_block(const float* a, int k, const float* b, float* c) {
    Eight sums[R] = {};
    for (int i = 0; i < k; ++i) {
        const Eight numbers = *reinterpret_cast<const LooseEight*>(b + size_t(i) * EIGHT);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) sums[r] += (Eight{} + a[size_t(r) * k + i]) * numbers;
    }
    for (int r = 0; r < R; ++r) *reinterpret_cast<LooseEight*>(c + size_t(r) * EIGHT) = sums[r];
}

// c [rows, 8] = a [rows, k] b [k, 8].
inline void thin(const float* a, int rows, int k, const float* b, float* c) {
    int row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        thin_block<ROWS>(a + size_t(row) * k, k, b, c + size_t(row) * EIGHT);
    for (; row < rows; ++row) thin_block<1>(a + size_t(row) * k, k, b, c + size_t(row) * EIGHT);
}

// c [8, n] = u' [8, rows] y [rows, n].
inline void outer(const float* u, const float* y, int rows, int n, float* c) {
    int at = 0;
    for (; at + LANES <= n; at += LANES) {
        Lanes sums[EIGHT] = {};
        for (int row = 0; row < rows; ++row) {
            const Lanes numbers = load(y + size_t(row) * n + at);
#pragma GCC unroll 8
            for (int r = 0; r < EIGHT; ++r) sums[r] += all(u[size_t(row) * EIGHT + r]) * numbers;
        }
        for (int r = 0; r < EIGHT; ++r) store(c + size_t(r) * n + at, sums[r]);
    }
    for (; at < n; ++at)
        for (int r = 0; r < EIGHT; ++r) {
            float total = 0;
            for (int row = 0; row < rows; ++row)
                total += u[size_t(row) * EIGHT + r] * y[size_t(row) * n + at];
            c[size_t(r) * n + at] = total;
        }
}

// Sums down the columns of x, and of x * y where y is given: [n].
inline void column_sums(const float* x, const float* y, int rows, int n, float* out) {
    std::fill(out, out + n, 0.0f);
    for (int row = 0; row < rows; ++row) {
        const float *a = x + size_t(row) * n, *b = y ? y + size_t(row) * n : nullptr;
        if (b)
            for (int j = 0; j < n; ++j) out[j] += a[j] * b[j];
        else
            for (int j = 0; j < n; ++j) out[j] += a[j];
    }
}
