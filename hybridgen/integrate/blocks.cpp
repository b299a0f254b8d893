// What a library for CPUs is called by; the numbers of a member lie together.

// The clock at all steps of the schedule.
static V* all_ticks(const Batch& batch) {
    if (batch.own_times || !CLOCK) return nullptr;
    int64_t steps = 0;
    for (int64_t i = 0; i + 1 < batch.times; ++i) steps += batch.schedule[i];
    V* all = (V*)aligned_alloc(64, (steps * TICKS + 1) * sizeof(V));
    V* next = all;
    for (int64_t i = 0; i + 1 < batch.times; next += batch.schedule[i++] * TICKS)
        tick_all(batch, i, next);
    return all;
}

// Integrate members [first, last); `first` is a multiple of LANES.
extern "C" void march(const Batch* batch, const Outcome* out, int64_t first, int64_t last) {
    V* ticks = all_ticks(*batch);
    for (int64_t b = first; b < last; b += LANES) march_block(*batch, b, *out, ticks);
    free(ticks);
}

// Advance all members over one interval at one level, in place.
extern "C" void cross_interval(
    const Batch* batch, int64_t interval, int64_t level, real* y, real* k, real* error
) {
    for (int64_t first = 0; first < batch->members; first += LANES)
        cross_interval_block(*batch, first, interval, level, y, k, error);
}

// Pick the level of each interval on all members, as long as all can follow; return how many
// intervals that is.
extern "C" int64_t pilot(const Batch* batch, int64_t* levels) {
    enum { MOST = PILOTS / LANES };
    const int blocks = (batch->members + LANES - 1) / LANES;
    if (blocks > MOST) return 0;
    Block b[MOST], tried[MOST];
    real squares[PILOTS];
    for (int n = 0; n < blocks; ++n) load(b[n], *batch, n * LANES);
    int64_t level = 1;
    for (int64_t i = 0; i + 1 < batch->times;) {
        for (int n = 0; n < blocks; ++n) {
            tried[n] = b[n];
            const V t0 = time_at(*batch, n * LANES, i), t1 = time_at(*batch, n * LANES, i + 1);
            cross(tried[n], t0, (t1 - t0) / (real)level, level, *batch, nullptr, true);
            for (int l = 0; l < LANES; ++l) squares[n * LANES + l] = tried[n].error[l];
        }
        const Verdict verdict = judge(squares, level, *batch);
        if (verdict.broken) return i;
        if (verdict.good) {
            levels[i++] = level;
            for (int n = 0; n < blocks; ++n) b[n] = tried[n];
        }
        level = verdict.level;
    }
    return batch->times - 1;
}

extern "C" int64_t lanes() { return LANES; }

// The derivative of all members at the first time.
extern "C" void slope(const Batch* batch, real* k) {
    for (int64_t first = 0; first < batch->members; first += LANES) slope_block(*batch, first, k);
}
