// March members along the save grid by an embedded explicit Runge-Kutta pair, LANES at a time.
//
// What is written for a field comes before this file: lanes.h and rows.h, or thread.h, batch.h, the counts
// STATES, ARGUMENTS, HOISTED, CLOCK and STAGES, and the coefficients TABLEAU_C, TABLEAU_A,
// TABLEAU_B, TABLEAU_E; what comes after it: blocks.cpp or threads.cu, and `once`, `clock` and
// `field`. All numbers of the members in a block are in vectors `V`, a lane each, and stay in
// registers and cache from the first save time to the last.
//
// A member's path depends on its own numbers and the schedule alone. The block crosses an interval
// at the lowest level that one of its members wants, and only those that want it keep the result;
// those whose error is above 1 want a higher level. Where none is high enough, a member is chased
// through the interval alone, by steps as short as its error asks for.

INLINE void once(const V* p, const real* c, V* q);
// What depends on time alone.
INLINE void clock(V t, const real* c, V* r);
FIELD void field(V t, const V* y, const V* q, const V* r, const real* c, V* k);

struct Front {
    V y[STATES], k[STATES];
};

struct Block : Front {
    V q[HOISTED + 1], error;
};

enum { TICKS = STAGES * (CLOCK + 1) };

// The clock at the stages of a step, and at its end.
NOINLINE void tick(V t, V dt, const real* c, V* r) {
    for (int s = 1; s < STAGES; ++s) clock(t + dt * TABLEAU_C[s - 1], c, r + (s - 1) * (CLOCK + 1));
    clock(t + dt, c, r + (STAGES - 1) * (CLOCK + 1));
}

// Advance a block by `level` substeps of length `dt` from `t0`. The error of a lane, the worst of
// its substeps, is left as a sum of squares over the state; unless it must be `exact`, it may be left
// at 0 where no component is off by more than is allowed, for the divisions take as long as a
// stage. `ticks` has the clock at these steps.
NOINLINE void cross(
    Block& b, V t0, V dt, int64_t level, const Batch& batch, const V* ticks, bool exact
) {
    b.error = V{};
    for (int64_t j = 0; j < level; ++j) {
        const V t = t0 + dt * (real)j;
        V own[TICKS];
        if (CLOCK && !ticks) tick(t, dt, batch.c, own);
        const V* r = ticks ? ticks + j * TICKS : own;
        V k[STAGES + 1][STATES], y[STATES];
        UNROLL_STATES
        for (int i = 0; i < STATES; ++i) k[0][i] = b.k[i];
        UNROLL
        for (int s = 1; s < STAGES; ++s) {
            UNROLL_STATES
            for (int i = 0; i < STATES; ++i) {
                V sum = V{};
                UNROLL
                for (int n = 0; n < s - 1; ++n)
                    if (TABLEAU_A[s - 1][n] != 0) sum += k[n][i] * TABLEAU_A[s - 1][n];
                // Last and alone the derivative that all have to wait for.
                y[i] = b.y[i] + dt * sum + k[s - 1][i] * (dt * TABLEAU_A[s - 1][s - 1]);
            }
            field(t + dt * TABLEAU_C[s - 1], y, b.q, r + (s - 1) * (CLOCK + 1), batch.c, k[s]);
        }
        UNROLL_STATES
        for (int i = 0; i < STATES; ++i) {
            V sum = V{};
            UNROLL
            for (int s = 0; s < STAGES; ++s) sum += k[s][i] * TABLEAU_B[s];
            y[i] = b.y[i] + dt * sum;
        }
        field(t + dt, y, b.q, r + (STAGES - 1) * (CLOCK + 1), batch.c, k[STAGES]);
        V off[STATES], allowed[STATES];
        M doubt = M{};
        UNROLL_STATES
        for (int i = 0; i < STATES; ++i) {
            // Not a number where the state is infinite, and so is what is allowed.
            V sum = y[i] * (real)0;
            UNROLL
            for (int s = 0; s <= STAGES; ++s) sum += k[s][i] * TABLEAU_E[s];
            off[i] = vabs(dt * sum);
            allowed[i] = larger(vabs(b.y[i]), vabs(y[i])) * batch.rtol[i] + batch.atol[i];
            doubt = doubt | ~(off[i] <= allowed[i]);
            b.y[i] = y[i];
            b.k[i] = k[STAGES][i];
        }
        if (!exact && !any(doubt)) continue;
        V squares = V{};
        UNROLL_STATES
        for (int i = 0; i < STATES; ++i) {
            const V ratio = off[i] / allowed[i];
            squares += ratio * ratio;
        }
        b.error = larger(vabs(squares), b.error);
    }
}

// The error of a lane as the root of a mean.
INLINE double error_of(real squares) { return sqrt((double)squares / STATES); }

INLINE bool is_good(real squares) { return squares <= (real)STATES; }

static V lane_of(const real* x, int64_t count, int64_t i, int64_t first, int64_t members) {
    V v;
    for (int l = 0; l < LANES; ++l)
        // The last block repeats its last member: every lane does the same arithmetic.
        v[l] = x[place(first + l < members ? first + l : members - 1, i, count, members)];
    return v;
}

static void load(Block& b, const Batch& batch, int64_t first) {
    V p[ARGUMENTS + 1];
    for (int i = 0; i < STATES; ++i) {
        b.y[i] = lane_of(batch.y0, STATES, i, first, batch.members);
        b.k[i] = lane_of(batch.k0, STATES, i, first, batch.members);
    }
    for (int i = 0; i < ARGUMENTS; ++i) p[i] = lane_of(batch.p, ARGUMENTS, i, first, batch.members);
    once(p, batch.c, b.q);
}

static V time_at(const Batch& batch, int64_t first, int64_t i) {
    if (!batch.own_times) return splat(batch.t[i]);
    return lane_of(batch.t, batch.times, i, first, batch.members);
}

static double peak(const V* y, int lane) {
    double most = 0;
    for (int i = 0; i < STATES; ++i) most = fmax(most, fabs((double)y[i][lane]));
    return most;
}

enum { CHASE = 4096 };

// Chase one lane through an interval; all lanes of the block become that member. The step, a
// fraction of the interval, is tried again for the next one. A verdict other than OK leaves it on
// the way: its state is out of all proportion to where it started, or the field is not a number, or
// the steps are used up.
static int8_t chase(Block& b, int lane, V t0, V length, double limit, double& pace,
                    const Batch& batch, int64_t& spent) {
    for (int i = 0; i < STATES; ++i) {
        b.y[i] = splat(b.y[i][lane]);
        b.k[i] = splat(b.k[i][lane]);
    }
    for (int i = 0; i < HOISTED; ++i) b.q[i] = splat(b.q[i][lane]);
    t0 = splat(t0[lane]);
    length = splat(length[lane]);
    double done = 0;
    for (int n = 0; n < CHASE; ++n) {
        const bool last = pace >= 1 - done;
        const double size = last ? 1 - done : pace;
        Block tried = b;
        cross(tried, t0 + length * (real)done, length * (real)size, 1, batch, nullptr, true);
        ++spent;
        const double error = error_of(tried.error[0]);
        const bool good = error <= 1;
        double factor = isfinite(error) ? 0.9 * pow(fmax(error, 1e-10), -1.0 / ORDER) : 0.2;
        factor = fmin(fmax(factor, 0.2), good ? 5.0 : 0.9);
        if (!last || factor < 1) pace = size * factor;
        if (!good) {
            if (size > 1e-14) continue;
            return peak(b.y, 0) > limit ? DIVERGED : NONFINITE;
        }
        b = tried;
        if (!(peak(b.y, 0) <= limit)) return DIVERGED;
        if (last) return OK;
        done += size;
    }
    return UNCROSSED;
}

// How far members got apart from the pace of the batch.
struct Apart {
    int64_t level[LANES];
    double pace[LANES], limit[LANES];
    bool lost[LANES], any;
};

// Where the members of a block stand at the end of an interval that not all cross at one level.
NOINLINE void cross_each(
    Block& b, V t0, V length, int64_t base, const Batch& batch, int64_t first, int count,
    Apart& apart, const Outcome& out
) {
    const Block start = b;
    int64_t want[LANES];
    bool open[LANES];
    for (int l = 0; l < LANES; ++l) {
        open[l] = l < count && !apart.lost[l];
        want[l] = apart.level[l] > base ? apart.level[l] : base;
        apart.level[l] = 1;
    }
    for (;;) {
        int64_t lowest = INT64_MAX;
        int chosen = 0;
        for (int l = 0; l < LANES; ++l)
            if (open[l] && want[l] < lowest) lowest = want[l], chosen = l;
        if (lowest == INT64_MAX) return;
        Block tried = start;
        const bool alone = lowest > batch.max_substeps;
        int8_t verdict = OK;
        if (alone)
            verdict = chase(tried, chosen, t0, length, apart.limit[chosen], apart.pace[chosen],
                            batch, out.spent[first + chosen]);
        else
            cross(tried, t0, length / (real)lowest, lowest, batch, nullptr, true);
        for (int l = 0; l < LANES; ++l) {
            if (!open[l] || want[l] != lowest || (alone && l != chosen)) continue;
            const int64_t m = first + l;
            if (!alone) out.spent[m] += lowest;
            const bool good = alone ? verdict == OK : is_good(tried.error[l]);
            if (good) {
                for (int i = 0; i < STATES; ++i) {
                    b.y[i][l] = tried.y[i][l];
                    b.k[i][l] = tried.k[i][l];
                }
                if (alone) apart.level[l] = lowest;
                else if (lowest > base) apart.level[l] = next_level(error_of(tried.error[l]), lowest, batch);
                if (lowest > base) out.status[m] = RETRIED;
                open[l] = false;
            } else if (alone) {
                for (int i = 0; i < STATES; ++i) b.y[i][l] = (real)NAN;
                out.status[m] = verdict;
                apart.lost[l] = true;
                open[l] = false;
            } else if (lowest >= batch.max_substeps) {
                want[l] = batch.max_substeps + 1;
            } else {
                want[l] = next_level(error_of(tried.error[l]), lowest, batch);
            }
        }
    }
}

static void march_block(
    const Batch& batch, int64_t first, const Outcome& out, const V* ticks
) {
    const int count = batch.members - first < LANES ? batch.members - first : LANES;
    Block b;
    load(b, batch, first);
    Rows rows = rows_of(out.y, first, batch.times * STATES, count, batch.members);
    for (int c = 0; c < STATES; ++c) put(rows, b.y[c]);
    Apart apart;
    apart.any = false;
    for (int l = 0; l < LANES; ++l) {
        apart.level[l] = 1;
        apart.lost[l] = false;
        apart.pace[l] = 1.0 / batch.max_substeps;
        apart.limit[l] = 1e6 * (1 + peak(b.y, l));
    }
    int64_t common = 0;  // substeps that all took
    V t0 = time_at(batch, first, 0);
    for (int64_t i = 0; i + 1 < batch.times; ++i) {
        const V t1 = time_at(batch, first, i + 1);
        const int64_t base = batch.schedule[i];
        bool together = !apart.any;
        if (together) {
            const Front start = b;
            cross(b, t0, (t1 - t0) / (real)base, base, batch, ticks, false);
            together = !any(~(b.error <= splat(STATES)));
            if (!together) (Front&)b = start;
        }
        if (together) {
            common += base;
        } else {
            cross_each(b, t0, t1 - t0, base, batch, first, count, apart, out);
            apart.any = false;
            for (int l = 0; l < count; ++l) {
                apart.any |= apart.lost[l] || apart.level[l] > 1;
                if (!apart.lost[l]) out.reached[first + l] = i + 1;
            }
        }
        for (int c = 0; c < STATES; ++c) put(rows, b.y[c]);
        if (ticks) ticks += base * TICKS;
        t0 = t1;
    }
    finish(rows);
    for (int l = 0; l < count; ++l) {
        out.spent[first + l] += common;
        if (!apart.lost[l]) out.reached[first + l] = batch.times - 1;
    }
}

// The clock at all steps of an interval, where all members share their times.
static void tick_all(const Batch& batch, int64_t i, V* next) {
    const real dt = (batch.t[i + 1] - batch.t[i]) / (real)batch.schedule[i];
    for (int64_t j = 0; j < batch.schedule[i]; ++j, next += TICKS)
        tick(splat(batch.t[i]) + splat(dt) * (real)j, splat(dt), batch.c, next);
}

// Advance members by an interval at one level, from and to `y` and `k`.
static void cross_interval_block(
    const Batch& batch, int64_t first, int64_t interval, int64_t level, real* y, real* k,
    real* error
) {
    Block b;
    load(b, batch, first);
    const V t0 = time_at(batch, first, interval), t1 = time_at(batch, first, interval + 1);
    cross(b, t0, (t1 - t0) / (real)level, level, batch, nullptr, true);
    for (int l = 0; l < LANES && first + l < batch.members; ++l) {
        error[first + l] = error_of(b.error[l]);
        for (int i = 0; i < STATES; ++i) {
            y[place(first + l, i, STATES, batch.members)] = b.y[i][l];
            k[place(first + l, i, STATES, batch.members)] = b.k[i][l];
        }
    }
}

// The derivative of members at the first time.
static void slope_block(const Batch& batch, int64_t first, real* k) {
    Block b;
    load(b, batch, first);
    const V t = time_at(batch, first, 0);
    V out[STATES], r[CLOCK + 1];
    clock(t, batch.c, r);
    field(t, b.y, b.q, r, batch.c, out);
    for (int l = 0; l < LANES && first + l < batch.members; ++l)
        for (int i = 0; i < STATES; ++i)
            k[place(first + l, i, STATES, batch.members)] = out[i][l];
}

enum { PILOTS = 64 };

// What a pilot does after it tried an interval at a level, by the errors of its members, as pace.py
// says: go on to the next interval if `good`, give up if `broken`, and take another level.
struct Verdict {
    bool good, broken;
    int64_t level;
};

static Verdict judge(const real* squares, int64_t level, const Batch& batch) {
    real worst = 0;
    int failing = 0;
    for (int64_t m = 0; m < batch.members; ++m) {
        failing += !is_good(squares[m]);
        if (squares[m] > worst) worst = squares[m];
    }
    if (!failing) return {true, false, next_level(error_of(worst), level, batch)};
    int64_t wanted = 0;
    for (int64_t m = 0; m < batch.members; ++m) {
        if (is_good(squares[m])) continue;
        const int64_t higher = next_level(error_of(squares[m]), level, batch);
        if (higher > wanted) wanted = higher;
    }
    const bool few = 2 * failing < batch.members;
    const bool broken = level >= batch.max_substeps || (few && level >= CAP);
    return {false, broken, few && wanted > CAP ? CAP : wanted};
}
