// Take members through a fixed number of explicit Runge-Kutta steps an interval, LANES at a time, and
// the cotangents of their trajectories back through the very same steps.
//
// What is written for a field comes before this file: lanes.h, the counts STATES, ARGUMENTS,
// HOISTED, HOISTED_ADJOINT, SUMS, SIGNALS and STAGES, and the coefficients; what comes after it:
// `once` and `field`, `once_adjoint` and `adjoint`.
//
// With k_s = f(t_s, u_s) at the stages u_s = y + h sum_r a_sr k_r, a step ends at y + h sum_s b_s k_s.
// Backwards, from the cotangent l of its end,
//
//     l_s = h (b_s l + sum_{r > s} a_rs w_r),   w_s = (df/dy)^T l_s at u_s,   l <- l + sum_s w_s.
//
// All that is kept of the way there are the stages u_s. Signals are in a table: a step has POINTS
// times of its own, of which its stage s is the one numbered POINT[s], and ends at the next step's first.

INLINE void store(real* x, V v) { memcpy(x, &v, sizeof v); }
INLINE V load(const real* x) {
    V v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void once(const V* p, const real* c, V* q);
INLINE void field(V t, const V* y, const V* q, const real* c, const V* d, V* k);
INLINE void once_adjoint(const V* p, const real* c, V* q);
INLINE void adjoint(
    V t, const V* y, const V* l, const V* q, const real* c, const V* d, V* w, V* ga, V* sums,
    real* tape, int64_t stride
);

struct Rollout {
    int64_t members, times, own_times, padded;
    const real *t, *y0, *p, *c;
    const int64_t *schedule, *before;  // substeps of each interval, and before it
    const real* drive;                 // (POINTS steps + 1, SIGNALS, padded)
    real* stages;                      // (steps, STAGES, STATES, padded), or null
};

static V of_members(const real* x, int64_t count, int64_t i, int64_t first, int64_t members) {
    V v;
    for (int l = 0; l < LANES; ++l)
        // The last block repeats its last member: every lane does the same arithmetic.
        v[l] = x[(first + l < members ? first + l : members - 1) * count + i];
    return v;
}

static V time_of(const Rollout& run, int64_t first, int64_t i) {
    return run.own_times ? of_members(run.t, run.times, i, first, run.members) : splat(run.t[i]);
}

static void arguments(const Rollout& run, int64_t first, V* p) {
    for (int i = 0; i < ARGUMENTS; ++i)
        p[i] = of_members(run.p, ARGUMENTS, i, first, run.members);
}

// The table of signals from a step on.
static const real* driven(const Rollout& run, int64_t step, int64_t first) {
    return run.drive + step * POINTS * SIGNALS * run.padded + first;
}

// What signals are at a stage of that step.
INLINE void ask(const real* drive, int s, int64_t padded, V* d) {
    for (int i = 0; i < SIGNALS; ++i) d[i] = load(drive + (POINT[s] * SIGNALS + i) * padded);
}

static __attribute__((noinline)) void step(
    V t, V dt, V* y, const V* q, const real* c, const real* drive, real* keep, int64_t padded
) {
    V k[STAGES][STATES], u[STATES];
#pragma GCC unroll 16
    for (int s = 0; s < STAGES; ++s) {
        for (int i = 0; i < STATES; ++i) {
            V sum = V{};
#pragma GCC unroll 16
            for (int r = 0; r < s; ++r)
                if (TABLEAU_A[s - 1][r] != 0) sum += k[r][i] * TABLEAU_A[s - 1][r];
            u[i] = s ? y[i] + dt * sum : y[i];
            if (keep) store(keep + (s * STATES + i) * padded, u[i]);
        }
        V d[SIGNALS + 1];
        ask(drive, s, padded, d);
        field(s ? t + dt * TABLEAU_C[s - 1] : t, u, q, c, d, k[s]);
    }
    for (int i = 0; i < STATES; ++i) {
        V sum = V{};
#pragma GCC unroll 16
        for (int s = 0; s < STAGES; ++s) sum += k[s][i] * TABLEAU_B[s];
        y[i] += dt * sum;
    }
}

// Trajectories (N, T, S).
extern "C" void forward(const Rollout* run, real* out) {
    for (int64_t first = 0; first < run->members; first += LANES) {
        V p[ARGUMENTS + 1], q[HOISTED + 1], y[STATES];
        arguments(*run, first, p);
        once(p, run->c, q);
        for (int i = 0; i < STATES; ++i) y[i] = of_members(run->y0, STATES, i, first, run->members);
        V t0 = time_of(*run, first, 0);
        for (int64_t n = 0; n < run->times; ++n) {
            for (int64_t l = 0; l < LANES && first + l < run->members; ++l)
                for (int i = 0; i < STATES; ++i)
                    out[((first + l) * run->times + n) * STATES + i] = y[i][l];
            if (n + 1 == run->times) break;
            const V t1 = time_of(*run, first, n + 1), dt = (t1 - t0) / (real)run->schedule[n];
            for (int64_t j = 0; j < run->schedule[n]; ++j) {
                const int64_t at = run->before[n] + j;
                real* kept = run->stages ? run->stages + at * STAGES * STATES * run->padded + first : nullptr;
                step(t0 + dt * (real)j, dt, y, q, run->c, driven(*run, at, first), kept, run->padded);
            }
            t0 = t1;
        }
    }
}

static __attribute__((noinline)) void step_back(
    V t, V dt, V* l, const V* q, const real* c, const real* drive, V* ga, V* sums, const real* kept,
    int64_t padded, real* tape, int64_t stride
) {
    V w[STAGES][STATES];
#pragma GCC unroll 1
    for (int s = STAGES - 1; s >= 0; --s) {
        V u[STATES], cotangent[STATES], d[SIGNALS + 1];
        ask(drive, s, padded, d);
        for (int i = 0; i < STATES; ++i) {
            V sum = l[i] * TABLEAU_B[s];
            for (int r = s + 1; r < STAGES; ++r) sum += w[r][i] * TABLEAU_A[r - 1][s];
            cotangent[i] = dt * sum;
            u[i] = load(kept + (s * STATES + i) * padded);
        }
        const V at = s ? t + dt * TABLEAU_C[s - 1] : t;
        adjoint(at, u, cotangent, q, c, d, w[s], ga, sums, tape + s * padded, stride);
    }
    for (int i = 0; i < STATES; ++i)
        for (int s = 0; s < STAGES; ++s) l[i] += w[s][i];
}

// Take cotangents `l` (STATES, padded) from save time `last` back to `start`, adding those of the
// trajectory, `gy` (N, T, S), on the way; add to `ga` (ARGUMENTS, padded) and `sums` (SUMS), and
// write the tape (TAPE, steps * STAGES * padded) of these intervals.
extern "C" void backward(
    const Rollout* run, const real* gy, int64_t start, int64_t last, real* l, real* ga, real* sums,
    real* tape
) {
    const int64_t slots = (run->before[last] - run->before[start]) * STAGES;
    for (int64_t first = 0; first < run->members; first += LANES) {
        V p[ARGUMENTS + 1], q[HOISTED_ADJOINT + 1], back[STATES], a[ARGUMENTS + 1], s[SUMS + 1];
        arguments(*run, first, p);
        once_adjoint(p, run->c, q);
        for (int i = 0; i < STATES; ++i) back[i] = load(l + i * run->padded + first);
        for (int i = 0; i < ARGUMENTS; ++i) a[i] = load(ga + i * run->padded + first);
        for (int i = 0; i < SUMS; ++i) s[i] = V{};
        for (int64_t n = last; n-- > start;) {
            for (int64_t m = 0; m < LANES && first + m < run->members; ++m)
                for (int i = 0; i < STATES; ++i)
                    back[i][m] += gy[((first + m) * run->times + n + 1) * STATES + i];
            const V t0 = time_of(*run, first, n);
            const V dt = (time_of(*run, first, n + 1) - t0) / (real)run->schedule[n];
            for (int64_t j = run->schedule[n]; j-- > 0;) {
                const int64_t at = run->before[n] + j;
                const real* kept = run->stages + at * STAGES * STATES * run->padded + first;
                real* slot = tape + (at - run->before[start]) * STAGES * run->padded + first;
                step_back(
                    t0 + dt * (real)j, dt, back, q, run->c, driven(*run, at, first), a, s, kept,
                    run->padded, slot, slots * run->padded
                );
            }
        }
        for (int i = 0; i < STATES; ++i) store(l + i * run->padded + first, back[i]);
        for (int i = 0; i < ARGUMENTS; ++i) store(ga + i * run->padded + first, a[i]);
        for (int i = 0; i < SUMS; ++i)
            for (int m = 0; m < LANES; ++m) sums[i] += s[i][m];
    }
}

extern "C" int64_t lanes() { return LANES; }
