// A vector `V` of one number, for a thread of a GPU that has one member: what lanes.h is on a CPU.
//
// REAL, ORDER and LONG are defined before this file. The compiler at run time has no headers, but knows
// the mathematics; all functions are for the GPU (--device-as-default-execution-space).

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef long long int64_t;
#define INT64_MAX 0x7fffffffffffffffLL
#define NAN __int_as_float(0x7fffffff)
#define INFINITY __int_as_float(0x7f800000)
#endif

typedef REAL real;
enum { LANES = 1 };

#define INLINE static __forceinline__
#define NOINLINE static __noinline__
// A step calls the field once a stage: a LONG one, written out each time, takes minutes to compile.
#if LONG
#define FIELD NOINLINE
#else
#define FIELD INLINE
#endif
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
// Loops over a small state: only arrays whose places are known at compile time stay in registers.
#if STATES <= 16
#define UNROLL_STATES _Pragma("unroll")
#else
#define UNROLL_STATES
#endif

struct M {
    bool x;
    explicit operator bool() const { return x; }
};
INLINE M operator&(M a, M b) { return {a.x && b.x}; }
INLINE M operator|(M a, M b) { return {a.x || b.x}; }
INLINE M operator~(M a) { return {!a.x}; }
INLINE M operator==(M a, M b) { return {a.x == b.x}; }
INLINE M operator!=(M a, M b) { return {a.x != b.x}; }

struct V {
    real x;
    real& operator[](int) { return x; }
    const real& operator[](int) const { return x; }
};
INLINE V splat(real x) { return {x}; }
INLINE V operator-(V a) { return {-a.x}; }
#define OPERATOR(sign) \
    INLINE V operator sign(V a, V b) { return {a.x sign b.x}; } \
    INLINE V operator sign(V a, real b) { return {a.x sign b}; } \
    INLINE V operator sign(real a, V b) { return {a sign b.x}; }
OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(/)
#undef OPERATOR
#define COMPARE(sign) \
    INLINE M operator sign(V a, V b) { return {a.x sign b.x}; }
COMPARE(<) COMPARE(<=) COMPARE(>) COMPARE(>=) COMPARE(==) COMPARE(!=)
#undef COMPARE
INLINE V& operator+=(V& a, V b) { return a = a + b; }

#define DECLARE(name) \
    INLINE V v##name(V x) { return {name(x.x)}; }
DECLARE(sin) DECLARE(cos) DECLARE(tan) DECLARE(asin) DECLARE(acos) DECLARE(atan)
DECLARE(sinh) DECLARE(cosh) DECLARE(tanh) DECLARE(exp) DECLARE(exp2) DECLARE(expm1)
DECLARE(log) DECLARE(log1p) DECLARE(log2) DECLARE(log10) DECLARE(erf)
DECLARE(sqrt) DECLARE(floor) DECLARE(ceil)
#undef DECLARE
INLINE V vpow(V x, V y) { return {pow(x.x, y.x)}; }
INLINE V vatan2(V y, V x) { return {atan2(y.x, x.x)}; }
INLINE V vabs(V x) { return {fabs(x.x)}; }
INLINE V larger(V a, V b) { return a.x > b.x || a.x != a.x ? a : b; }
INLINE bool any(M m) { return m.x; }

// Number i of `count` of a member: numbers of neighbouring members lie together, as the threads
// that read them do.
INLINE int64_t place(int64_t member, int64_t i, int64_t count, int64_t members) {
    return i * members + member;
}

// Where the numbers of a member go, one after the other.
struct Rows {
    real* to;
    int64_t members;
};

INLINE Rows rows_of(real* all, int64_t first, int64_t length, int count, int64_t members) {
    return {all + first, members};
}

INLINE void put(Rows& rows, V x) {
    *rows.to = x.x;
    rows.to += rows.members;
}

INLINE void finish(Rows& rows) {}
