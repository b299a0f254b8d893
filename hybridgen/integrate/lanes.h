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
#define NOINLINE __attribute__((noinline)) static
#define FIELD INLINE
#define UNROLL _Pragma("GCC unroll 16")
#define ROLLED
#define UNROLL_STATES

// Declared so that the compiler calls the vector versions of glibc, where there are any.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(VECTOR_MATHS)
#define SIMD __attribute__((simd("notinbranch")))
#else
#define SIMD
#endif
#define DECLARE(name) DECLARE_AS(v##name, name)
#define DECLARE_AS(vname, name) \
    extern "C" SIMD double name(double) noexcept; \
    extern "C" SIMD float name##f(float) noexcept; \
    INLINE double scalar_##name(double x) { return name(x); } \
    INLINE float scalar_##name(float x) { return name##f(x); } \
    INLINE V vname(V x) { \
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
DECLARE_AS(library_sin, sin) DECLARE_AS(library_cos, cos) DECLARE(tanh) DECLARE(exp) DECLARE(expm1) DECLARE(tan) DECLARE(asin) DECLARE(acos) DECLARE(atan)
DECLARE(sinh) DECLARE(cosh) DECLARE(exp2)
DECLARE(log) DECLARE(log1p) DECLARE(log2) DECLARE(log10) DECLARE(erf)
DECLARE2(pow) DECLARE2(atan2)
#undef SIMD
#define SIMD
DECLARE(sqrt) DECLARE(floor) DECLARE(ceil)

INLINE V splat(real x) { return x - V{}; }
INLINE V vabs(V x) { return (V)((M)x & ~(M)splat(-0.0)); }
// The larger of two numbers that are not negative, or a NaN: its bits make the largest number.
INLINE V larger(V a, V b) { return (V)((M)a > (M)b ? (M)a : (M)b); }

INLINE bool any(M m) {
#if defined(__AVX512F__) && !defined(__clang__)
    typedef long long Bits __attribute__((vector_size(64)));
    return __builtin_ia32_ptestmq512((Bits)m, (Bits)m, (unsigned char)-1);
#else
    real found = 0;
    for (int l = 0; l < LANES; ++l) found += m[l] != 0;
    return found;
#endif
}

// The sine of x + half pi, where `half` is 0 or 1, for numbers up to FAR. With n the multiple of pi
// that is next to it and r what is left, at most pi / 2, it is (-1)^n sin r, and sin r is
// r + r^3 p(r^2), with the polynomial of least error there. A call of the library would cost as much
// again, for it saves all vectors around it.
enum { FAR = 100000 };
// What is left is exact only where a product and a sum are rounded once.
#ifdef __FP_FAST_FMA
enum { OWN = sizeof(real) == 8 };
#else
enum { OWN = 0 };
#endif

INLINE V wave(V x, int half) {
    // The sum has no room for a fraction: it is rounded, and its last bit tells even from odd.
    const V round = splat(6755399441055744.0);
    const V sum = x * (real)0.3183098861837907 + (real)(0.5 * half) + round;
    const V n = sum - round - (real)(0.5 * half);
    const V r = x - n * (real)3.141592653589793 - n * (real)1.2246467991473532e-16
                  - n * (real)-2.9947698097183397e-33;
    const V z = r * r, zz = z * z;
    const V a = z * (real)0.008333333333333316 + (real)-0.16666666666666666;
    const V b = z * (real)2.7557319219160833e-06 + (real)-0.00019841269841254966;
    const V c = z * (real)1.6058977292642743e-10 + (real)-2.505210761669045e-08;
    const V d = z * (real)2.731436876937957e-15 + (real)-7.643969663988072e-13;
    const V sine = r * z * ((zz * d + c) * (zz * zz) + (zz * b + a)) + r;
    return (V)((M)sine ^ (M)sum << (8 * sizeof(real) - 1));
}

// A lane's number must not depend on how large those beside it are.
NOINLINE V far_sin(V x) { return library_sin(x); }
NOINLINE V far_cos(V x) { return library_cos(x); }

INLINE V vsin(V x) {
    if (!OWN) return library_sin(x);
    const M near = vabs(x) <= splat(FAR);
    const V found = wave(x, 0);
    return any(~near) ? near ? found : far_sin(x) : found;
}
INLINE V vcos(V x) {
    if (!OWN) return library_cos(x);
    const M near = vabs(x) <= splat(FAR);
    const V found = wave(x, 1);
    return any(~near) ? near ? found : far_cos(x) : found;
}

// Number i of `count` of a member: a member's numbers lie together.
INLINE int64_t place(int64_t member, int64_t i, int64_t count, int64_t members) {
    return member * count + i;
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
