// Vectors `V` of numbers, a lane each, with the mathematics that fields use.
//
// REAL, the type of a number, and ORDER, that of the method, are defined before this file.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef REAL real;
enum { LANES = 64 / sizeof(real) };
typedef real V __attribute__((vector_size(64)));
typedef decltype(V() < V()) M;

#define INLINE __attribute__((always_inline)) static inline

// Declared so that the compiler calls the vector versions of glibc, where there are any.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(VECTOR_MATHS)
#define SIMD __attribute__((simd("notinbranch")))
#else
#define SIMD
#endif
#define DECLARE(name) \
    extern "C" SIMD double name(double) noexcept; \
    extern "C" SIMD float name##f(float) noexcept; \
    INLINE double scalar_##name(double x) { return name(x); } \
    INLINE float scalar_##name(float x) { return name##f(x); } \
    INLINE V v##name(V x) { \
        alignas(64) real a[LANES]; \
        memcpy(a, &x, sizeof x); \
        for (int l = 0; l < LANES; ++l) a[l] = scalar_##name(a[l]); \
        memcpy(&x, a, sizeof x); \
        return x; \
    }
#define DECLARE2(name) \
    extern "C" SIMD double name(double, double) noexcept; \
    extern "C" SIMD float name##f(float, float) noexcept; \
    INLINE double scalar_##name(double x, double y) { return name(x, y); } \
    INLINE float scalar_##name(float x, float y) { return name##f(x, y); } \
    INLINE V v##name(V x, V y) { \
        alignas(64) real a[LANES], b[LANES]; \
        memcpy(a, &x, sizeof x); \
        memcpy(b, &y, sizeof y); \
        for (int l = 0; l < LANES; ++l) a[l] = scalar_##name(a[l], b[l]); \
        memcpy(&x, a, sizeof x); \
        return x; \
    }
DECLARE(sin) DECLARE(cos) DECLARE(tanh) DECLARE(exp) DECLARE(expm1) DECLARE(tan) DECLARE(asin) DECLARE(acos) DECLARE(atan)
DECLARE(sinh) DECLARE(cosh) DECLARE(exp2)
DECLARE(log) DECLARE(log1p) DECLARE(log2) DECLARE(log10) DECLARE(erf)
DECLARE2(pow) DECLARE2(atan2)
#undef SIMD
#define SIMD
DECLARE(sqrt) DECLARE(floor) DECLARE(ceil)

INLINE V splat(real x) { return x - V{}; }
INLINE V vabs(V x) { return x < 0 ? -x : x; }
// A NaN of either comes through, as in torch.
INLINE V vmax(V a, V b) { return (a > b) | (a != a) ? a : b; }
INLINE V vmin(V a, V b) { return (a < b) | (a != a) ? a : b; }

// A layer of a network: out = x w + bias, with entry (k, o) of the K x O matrix at w[k A + o B].
template <int K, int O, int A, int B>
INLINE void dense(const V* x, const real* w, const real* bias, V* out) {
    enum { TILE = 8 };
    int o = 0;
    for (; o + TILE <= O; o += TILE) {
        V sum[TILE];
        for (int j = 0; j < TILE; ++j) sum[j] = bias ? splat(bias[o + j]) : V{};
        for (int k = 0; k < K; ++k)
            for (int j = 0; j < TILE; ++j) sum[j] += x[k] * w[k * A + (o + j) * B];
        for (int j = 0; j < TILE; ++j) out[o + j] = sum[j];
    }
    for (; o < O; ++o) {
        V sum = bias ? splat(bias[o]) : V{};
        for (int k = 0; k < K; ++k) sum += x[k] * w[k * A + o * B];
        out[o] = sum;
    }
}

struct Batch {
    int64_t members, times, own_times, max_substeps, rungs;
    const real *t, *y0, *k0, *p, *c, *rtol, *atol;
    const int64_t *schedule, *ladder;
};

// As in solution.py; UNCROSSED asks for another method.
enum { OK = 0, RETRIED = 1, UNCROSSED = 2, DIVERGED = 3, NONFINITE = 4 };
// As in pace.py: above this level the batch does not wait for a few.
enum { CAP = 16 };

struct Outcome {
    real* y;           // (N, T, S)
    int64_t* reached;  // the last good save time
    int64_t* spent;    // substeps
    int8_t* status;    // how it fared
};

// The level that a member needs, by the error it made at a given one; see levels.py.
static int64_t next_level(double error, int64_t level, const Batch& batch) {
    double wanted = 2.0 * level;
    if (isfinite(error)) {
        const double growth = pow(error, 1.0 / ORDER) / 0.9;
        wanted = level * (growth < 8.0 ? growth : 8.0);
    }
    if (!(error <= 1.0) && wanted < level + 1.0) wanted = level + 1.0;
    int64_t i = 0;
    while (i < batch.rungs - 1 && batch.ladder[i] < wanted) ++i;
    return batch.ladder[i];
}

// Ask the system for large pages where a large result will be written: it would spend longer on
// handing out small ones than a kernel on filling them.
extern "C" void expect(char* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 1 << 21;
    const uintptr_t start = ((uintptr_t)memory + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)memory + bytes) / page * page;
    if (end > start) madvise((void*)start, end - start, MADV_HUGEPAGE);
#endif
}
