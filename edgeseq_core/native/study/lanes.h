// Vectors of floats, written once: the compiler makes of them what a file's flags allow.
//
// Included into a namespace of each set of instructions.  `a * b + c` is fused where the CPU can, so bits
// depend on the set, and on nothing else: every number is summed in the order of its own terms.

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6;
#else
constexpr int LANES = 8, ROWS = 4;
#endif
constexpr int EIGHT = 8;  // numbers of a rank that are worked on together

typedef float Lanes __attribute__((vector_size(LANES * 4)));
typedef float LooseLanes __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(LANES * 4)));
typedef float Eight __attribute__((vector_size(32)));
typedef float LooseEight __attribute__((vector_size(32), aligned(4)));

inline Lanes load(const float* from) { return *reinterpret_cast<const LooseLanes*>(from); }
inline void store(float* to, Lanes value) { *reinterpret_cast<LooseLanes*>(to) = value; }
inline Lanes all(float value) { return Lanes{} + value; }
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

inline float sum(Lanes v) {
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += v[i];
    return total;
}

inline float largest(Lanes v) {
    float found = v[0];
    for (int i = 1; i < LANES; ++i) found = v[i] > found ? v[i] : found;
    return found;
}

// e^x for x <= 0, to about one unit in the last place (polynomial of Cephes, expf); 0 below -87.
inline Lanes exponential(Lanes x) {
    const Lanes tiny = all(-87.0f);
    const auto gone = x < tiny;
    x = larger(x, tiny);
    const Lanes magic = all(12582912.0f);  // adding it rounds to a whole number
    const Lanes n = (x * 1.44269504088896341f + magic) - magic;
    const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes y = all(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const Whole power = (__builtin_convertvector(n, Whole) + 127) << 23;
    return gone ? Lanes{} : y * reinterpret_cast<Lanes>(power);
}
