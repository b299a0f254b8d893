// March members along the save grid by an embedded explicit Runge-Kutta pair, LANES at a time.
//
// What is written for a field comes before this file: lanes.h, the counts STATES, ARGUMENTS, HOISTED
// and STAGES, and the coefficients TABLEAU_C, TABLEAU_A, TABLEAU_B, TABLEAU_E, ORDER; what comes
// after it: `once` and `field`. All numbers of the members in a block are in vectors `V`, a lane
// each, and stay in registers and cache from the first save time to the last.
//
// A member's path depends on its own numbers and the schedule alone. The block crosses an interval
// at the lowest level that one of its members wants, and only those that want it keep the result;
// those whose error is above 1 want a higher level, up to the last.

INLINE void once(const V* p, const real* c, V* q);
INLINE void field(V t, const V* y, const V* q, const real* c, V* k);

struct Block {
    V y[STATES], k[STATES], q[HOISTED + 1], error;
};

// Advance a block by `level` substeps of length `dt` from `t0`.
static __attribute__((noinline)) void cross(Block& b, V t0, V dt, int64_t level, const Batch& batch) {
    b.error = V{};
    for (int64_t j = 0; j < level; ++j) {
        const V t = t0 + dt * (real)j;
        V k[STAGES + 1][STATES], y[STATES];
        for (int i = 0; i < STATES; ++i) k[0][i] = b.k[i];
#pragma GCC unroll 16
        for (int s = 1; s < STAGES; ++s) {
            for (int i = 0; i < STATES; ++i) {
                V sum = V{};
#pragma GCC unroll 16
                for (int r = 0; r < s; ++r)
                    if (TABLEAU_A[s - 1][r] != 0) sum += k[r][i] * TABLEAU_A[s - 1][r];
                y[i] = b.y[i] + dt * sum;
            }
            field(t + dt * TABLEAU_C[s - 1], y, b.q, batch.c, k[s]);
        }
        for (int i = 0; i < STATES; ++i) {
            V sum = V{};
#pragma GCC unroll 16
            for (int r = 0; r < STAGES; ++r) sum += k[r][i] * TABLEAU_B[r];
            y[i] = b.y[i] + dt * sum;
        }
        field(t + dt, y, b.q, batch.c, k[STAGES]);
        V squares = V{};
        for (int i = 0; i < STATES; ++i) {
            V sum = V{};
#pragma GCC unroll 16
            for (int r = 0; r <= STAGES; ++r) sum += k[r][i] * TABLEAU_E[r];
            const V scale = vmax(vabs(b.y[i]), vabs(y[i])) * batch.rtol[i] + batch.atol[i];
            const V ratio = dt * sum / scale;
            squares += ratio * ratio;
            // An infinite state has an infinite scale and so no error.
            squares += y[i] * (real)0;
            b.y[i] = y[i];
            b.k[i] = k[STAGES][i];
        }
        b.error = vmax(squares, b.error);
    }
    b.error = vsqrt(b.error * (real)(1.0 / STATES));
}

// Where the members of a block stand at the end of an interval that not all cross at one level.
static void cross_each(
    Block& b, V t0, V length, int64_t base, const Batch& batch, int64_t first, int count,
    int64_t* level, bool* lost, const Outcome& out
) {
    const Block start = b;
    int64_t want[LANES];
    bool open[LANES];
    for (int l = 0; l < LANES; ++l) {
        open[l] = l < count && !lost[l];
        want[l] = level[l] > base ? level[l] : base;
        level[l] = 1;
    }
    for (;;) {
        int64_t lowest = INT64_MAX;
        for (int l = 0; l < LANES; ++l)
            if (open[l] && want[l] < lowest) lowest = want[l];
        if (lowest == INT64_MAX) return;
        Block tried = start;
        cross(tried, t0, length / (real)lowest, lowest, batch);
        for (int l = 0; l < LANES; ++l) {
            if (!open[l] || want[l] != lowest) continue;
            const int64_t m = first + l;
            out.spent[m] += lowest;
            if (tried.error[l] <= 1) {
                for (int i = 0; i < STATES; ++i) {
                    b.y[i][l] = tried.y[i][l];
                    b.k[i][l] = tried.k[i][l];
                }
                if (lowest > base) {
                    level[l] = next_level(tried.error[l], lowest, batch);
                    out.retried[m] = 1;
                }
                open[l] = false;
            } else if (lowest >= batch.max_substeps) {
                for (int i = 0; i < STATES; ++i) {
                    b.y[i][l] = start.y[i][l];
                    b.k[i][l] = start.k[i][l];
                }
                lost[l] = true;
                open[l] = false;
            } else {
                want[l] = next_level(tried.error[l], lowest, batch);
            }
        }
    }
}

static void load(Block& b, const Batch& batch, int64_t first) {
    V p[ARGUMENTS + 1];
    for (int l = 0; l < LANES; ++l) {
        // The last block repeats its last member: every lane does the same arithmetic.
        const int64_t m = first + l < batch.members ? first + l : batch.members - 1;
        for (int i = 0; i < STATES; ++i) {
            b.y[i][l] = batch.y0[m * STATES + i];
            b.k[i][l] = batch.k0[m * STATES + i];
        }
        for (int i = 0; i < ARGUMENTS; ++i) p[i][l] = batch.p[m * ARGUMENTS + i];
    }
    once(p, batch.c, b.q);
}

static V times(const Batch& batch, int64_t first, int64_t i) {
    if (!batch.own_times) return splat(batch.t[i]);
    V t;
    for (int l = 0; l < LANES; ++l) {
        const int64_t m = first + l < batch.members ? first + l : batch.members - 1;
        t[l] = batch.t[m * batch.times + i];
    }
    return t;
}

static void march_block(const Batch& batch, int64_t first, const Outcome& out) {
    const int count = batch.members - first < LANES ? batch.members - first : LANES;
    Block b;
    load(b, batch, first);
    int64_t level[LANES];
    bool lost[LANES];
    bool apart = false;  // whether some member left the pace of the batch
    for (int l = 0; l < LANES; ++l) {
        level[l] = 1;
        lost[l] = false;
    }
    V t0 = times(batch, first, 0);
    for (int64_t i = 0; i + 1 < batch.times; ++i) {
        const V t1 = times(batch, first, i + 1);
        const int64_t base = batch.schedule[i];
        if (apart) {
            cross_each(b, t0, t1 - t0, base, batch, first, count, level, lost, out);
        } else {
            const Block start = b;
            cross(b, t0, (t1 - t0) / (real)base, base, batch);
            int good = 0;
            for (int l = 0; l < count; ++l) good += b.error[l] <= 1;
            if (good == count) {
                for (int l = 0; l < count; ++l) out.spent[first + l] += base;
            } else {
                b = start;
                cross_each(b, t0, t1 - t0, base, batch, first, count, level, lost, out);
            }
        }
        apart = false;
        for (int l = 0; l < count; ++l) {
            apart = apart || lost[l] || level[l] > 1;
            real* y = out.y + ((first + l) * batch.times + i + 1) * STATES;
            for (int c = 0; c < STATES; ++c) y[c] = lost[l] ? (real)NAN : b.y[c][l];
            if (!lost[l]) out.reached[first + l] = i + 1;
        }
        t0 = t1;
    }
}

// Integrate members [first, last); `first` is a multiple of LANES.
extern "C" void march(const Batch* batch, const Outcome* out, int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b += LANES) march_block(*batch, b, *out);
}

// Advance all members over one interval at one level, in place.
extern "C" void cross_interval(
    const Batch* batch, int64_t interval, int64_t level, real* y, real* k, real* error
) {
    Batch at = *batch;
    at.y0 = y;
    at.k0 = k;
    for (int64_t first = 0; first < batch->members; first += LANES) {
        Block b;
        load(b, at, first);
        const V t0 = times(at, first, interval), t1 = times(at, first, interval + 1);
        cross(b, t0, (t1 - t0) / (real)level, level, at);
        for (int64_t l = 0; l < LANES && first + l < batch->members; ++l) {
            error[first + l] = b.error[l];
            for (int i = 0; i < STATES; ++i) {
                y[(first + l) * STATES + i] = b.y[i][l];
                k[(first + l) * STATES + i] = b.k[i][l];
            }
        }
    }
}

extern "C" int64_t lanes() { return LANES; }

// The derivative of all members at the first time.
extern "C" void slope(const Batch* batch, real* k) {
    for (int64_t first = 0; first < batch->members; first += LANES) {
        Block b;
        load(b, *batch, first);
        V out[STATES];
        field(times(*batch, first, 0), b.y, b.q, batch->c, out);
        for (int64_t l = 0; l < LANES && first + l < batch->members; ++l)
            for (int i = 0; i < STATES; ++i) k[(first + l) * STATES + i] = out[i][l];
    }
}
