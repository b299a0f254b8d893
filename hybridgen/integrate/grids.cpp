// March members that are fields on a grid, one after the other, by an embedded explicit Runge-Kutta
// pair; the lanes of a vector `V` are neighbours along the last axis.
//
// What is written for a field comes before this file: lanes.h, the counts COMPONENTS, ROWS, POINTS
// (in a row), ARGUMENTS, HOISTED and STAGES, the coefficients as for members.cpp, and how far the
// field looks, HALO_I rows and HALO_J points, with the rows and points that it finds there beyond
// the ends, FROM_I and FROM_J; what comes after it: `once` and `field`.

enum {
    STATES = COMPONENTS * ROWS * POINTS,
    WIDTH = (POINTS + LANES - 1) / LANES * LANES,  // of a row in memory
    PLANE = ROWS * WIDTH,
    SIZE = COMPONENTS * PLANE,
    // with room for what lies beyond the ends
    WIDE = WIDTH + 2 * LANES,
    WIDE_PLANE = (ROWS + 2 * HALO_I) * WIDE,
    WIDE_SIZE = COMPONENTS * WIDE_PLANE + LANES,
    CORNER = HALO_I * WIDE + LANES,
};
static_assert(HALO_J <= LANES, "the field looks too far along a row");

INLINE V load(const real* x) {
    V v;
    memcpy(&v, x, sizeof v);
    return v;
}
// LANES numbers from point j of a row on; there are none after its end.
INLINE V load_part(const real* x, int j) {
    V v = V{};
    for (int l = 0; l < LANES && j + l < POINTS; ++l) v[l] = x[l];
    return v;
}
INLINE void store(real* x, V v) { memcpy(x, &v, sizeof v); }

INLINE void once(const V* p, const real* c, V* q);
// The derivative at LANES points from (i, j) on; `u` is the corner of the state with its halo.
INLINE void field(V t, const real* u, const V* q, const real* c, int i, int j, V* k);

struct Grid {
    real *y, *k[STAGES + 1], *u, *start, *slope;
    V q[HOISTED + 1];
    double error;
};

static void fill_halo(real* u) {
    for (int c = 0; c < COMPONENTS; ++c) {
        real* plane = u + c * WIDE_PLANE + CORNER;
        for (int i = 0; i < ROWS; ++i)
            for (int h = 0; h < HALO_J; ++h) {
                real* row = plane + i * WIDE;
                row[-1 - h] = FROM_J[h] < 0 ? 0 : row[FROM_J[h]];
                row[POINTS + h] = FROM_J[HALO_J + h] < 0 ? 0 : row[FROM_J[HALO_J + h]];
            }
        for (int h = 0; h < HALO_I; ++h) {
            real *above = plane - (1 + h) * WIDE, *below = plane + (ROWS + h) * WIDE;
            if (FROM_I[h] >= 0)
                memcpy(above - LANES, plane + FROM_I[h] * WIDE - LANES, WIDE * sizeof(real));
            if (FROM_I[HALO_I + h] >= 0)
                memcpy(below - LANES, plane + FROM_I[HALO_I + h] * WIDE - LANES, WIDE * sizeof(real));
        }
    }
}

static void evaluate(V t, const Grid& g, const real* c, real* k) {
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < POINTS; j += LANES) {
            V out[COMPONENTS];
            field(t, g.u + CORNER, g.q, c, i, j, out);
            for (int s = 0; s < COMPONENTS; ++s) store(k + s * PLANE + i * WIDTH + j, out[s]);
        }
}

// u = y + dt sum_r weights[r] k[r], with its halo
template <int COUNT>
INLINE void combine(Grid& g, real dt, const real* weights) {
    for (int c = 0; c < COMPONENTS; ++c)
        for (int i = 0; i < ROWS; ++i)
            for (int j = 0; j < WIDTH; j += LANES) {
                const int at = c * PLANE + i * WIDTH + j;
                V sum = V{};
#pragma GCC unroll 16
                for (int r = 0; r < COUNT; ++r)
                    if (weights[r] != 0) sum += load(g.k[r] + at) * weights[r];
                store(g.u + c * WIDE_PLANE + CORNER + i * WIDE + j, load(g.y + at) + dt * sum);
            }
    fill_halo(g.u);
}

template <int S>
INLINE void stages(Grid& g, real t, real dt, const real* c) {
    if constexpr (S > 1) stages<S - 1>(g, t, dt, c);
    combine<S>(g, dt, TABLEAU_A[S - 1]);
    evaluate(splat(t + dt * TABLEAU_C[S - 1]), g, c, g.k[S]);
}

// The scaled error of a step to the state in `u`, which becomes that in `y`.
static double accept(Grid& g, real dt, const Batch& batch) {
    double squares = 0;
    for (int c = 0; c < COMPONENTS; ++c)
        for (int i = 0; i < ROWS; ++i) {
            V row = V{};
            for (int j = 0; j < POINTS; j += LANES) {
                const int at = c * PLANE + i * WIDTH + j;
                V sum = V{};
#pragma GCC unroll 16
                for (int r = 0; r <= STAGES; ++r) sum += load(g.k[r] + at) * TABLEAU_E[r];
                const V y = load(g.y + at), y1 = load(g.u + c * WIDE_PLANE + CORNER + i * WIDE + j);
                // tolerances may differ between components, not within one
                const int own = c * ROWS * POINTS;
                const V scale = vmax(vabs(y), vabs(y1)) * batch.rtol[own] + batch.atol[own];
                V ratio = dt * sum / scale;
                // An infinite state has an infinite scale and so no error.
                ratio = ratio * ratio + y1 * (real)0;
                for (int l = POINTS - j; l < LANES; ++l) ratio[l] = 0;
                row += ratio;
                store(g.y + at, y1);
            }
            for (int l = 0; l < LANES; ++l) squares += row[l];
        }
    return squares;
}

// Advance by `level` substeps of length `dt` from `t0`.
static void cross(Grid& g, real t0, real dt, int64_t level, const Batch& batch) {
    double worst = 0;
    for (int64_t j = 0; j < level; ++j) {
        const real t = t0 + dt * (real)j;
        stages<STAGES - 1>(g, t, dt, batch.c);
        combine<STAGES>(g, dt, TABLEAU_B);
        evaluate(splat(t + dt), g, batch.c, g.k[STAGES]);
        const double squares = accept(g, dt, batch);
        if (!(squares <= worst)) worst = squares;
        real* last = g.k[STAGES];
        g.k[STAGES] = g.k[0];
        g.k[0] = last;
        if (!isfinite(worst)) break;
    }
    g.error = sqrt(worst / STATES);
}

static void pack(const real* state, real* padded) {
    for (int r = 0; r < COMPONENTS * ROWS; ++r)
        memcpy(padded + r * WIDTH, state + r * POINTS, POINTS * sizeof(real));
}

static void unpack(const real* padded, real* state) {
    for (int r = 0; r < COMPONENTS * ROWS; ++r)
        memcpy(state + r * POINTS, padded + r * WIDTH, POINTS * sizeof(real));
}

static void prepare(Grid& g, const Batch& batch, int64_t m) {
    V p[ARGUMENTS + 1];
    for (int i = 0; i < ARGUMENTS; ++i) p[i] = splat(batch.p[m * ARGUMENTS + i]);
    once(p, batch.c, g.q);
    pack(batch.y0 + m * STATES, g.y);
    pack(batch.k0 + m * STATES, g.k[0]);
}

static real* make(Grid& g) {
    const size_t count = (STAGES + 4) * (size_t)SIZE + WIDE_SIZE + LANES;
    real* all = (real*)aligned_alloc(64, (count * sizeof(real) + 63) / 64 * 64);
    memset(all, 0, count * sizeof(real));
    real* next = all;
    for (int s = 0; s <= STAGES; ++s, next += SIZE) g.k[s] = next;
    g.y = next, next += SIZE;
    g.start = next, next += SIZE;
    g.slope = next, next += SIZE;
    g.u = next;
    return all;
}

INLINE real time_of(const Batch& batch, int64_t m, int64_t i) {
    return batch.t[batch.own_times ? m * batch.times + i : i];
}

static void march_one(Grid& g, const Batch& batch, int64_t m, const Outcome& out) {
    prepare(g, batch, m);
    const real* start = batch.y0 + m * STATES;
    memcpy(out.y + m * batch.times * STATES, start, STATES * sizeof(real));
    int64_t level = 1;
    for (int64_t i = 0; i + 1 < batch.times; ++i) {
        const real t0 = time_of(batch, m, i), length = time_of(batch, m, i + 1) - t0;
        const int64_t base = batch.schedule[i];
        memcpy(g.start, g.y, SIZE * sizeof(real));
        memcpy(g.slope, g.k[0], SIZE * sizeof(real));
        int64_t want = level > base ? level : base;
        for (;;) {
            cross(g, t0, length / (real)want, want, batch);
            out.spent[m] += want;
            if (g.error <= 1 || want >= batch.max_substeps) break;
            want = next_level(g.error, want, batch);
            memcpy(g.y, g.start, SIZE * sizeof(real));
            memcpy(g.k[0], g.slope, SIZE * sizeof(real));
        }
        real* y = out.y + (m * batch.times + i + 1) * STATES;
        if (!(g.error <= 1)) {
            const int64_t rest = (batch.times - 1 - i) * STATES;
            for (int64_t n = 0; n < rest; ++n) y[n] = (real)NAN;
            out.status[m] = UNCROSSED;
            return;
        }
        level = 1;
        if (want > base) {
            level = next_level(g.error, want, batch);
            out.status[m] = RETRIED;
        }
        unpack(g.y, y);
        out.reached[m] = i + 1;
    }
}

extern "C" int64_t lanes() { return 1; }

// Left to pace.py: a step is long enough not to feel the call.
extern "C" int64_t pilot(const Batch*, int64_t*) { return 0; }

// Integrate members [first, last).
extern "C" void march(const Batch* batch, const Outcome* out, int64_t first, int64_t last) {
    Grid g;
    real* all = make(g);
    for (int64_t m = first; m < last; ++m) march_one(g, *batch, m, *out);
    free(all);
}

// Advance all members over one interval at one level, in place.
extern "C" void cross_interval(
    const Batch* batch, int64_t interval, int64_t level, real* y, real* k, real* error
) {
    Batch at = *batch;
    at.y0 = y;
    at.k0 = k;
    Grid g;
    real* all = make(g);
    for (int64_t m = 0; m < batch->members; ++m) {
        prepare(g, at, m);
        const real t0 = time_of(at, m, interval), t1 = time_of(at, m, interval + 1);
        cross(g, t0, (t1 - t0) / (real)level, level, at);
        error[m] = g.error;
        unpack(g.y, y + m * STATES);
        unpack(g.k[0], k + m * STATES);
    }
    free(all);
}

// The derivative of all members at the first time.
extern "C" void slope(const Batch* batch, real* k) {
    Grid g;
    real* all = make(g);
    for (int64_t m = 0; m < batch->members; ++m) {
        prepare(g, *batch, m);
        combine<1>(g, 0, TABLEAU_A[0]);
        evaluate(splat(time_of(*batch, m, 0)), g, batch->c, g.k[1]);
        unpack(g.k[1], k + m * STATES);
    }
    free(all);
}
