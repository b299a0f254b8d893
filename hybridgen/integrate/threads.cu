// What a GPU is sent: a thread for each member. Neighbouring members lie together, so that the
// threads of a warp read and write neighbouring numbers.

INLINE int64_t own_number() { return blockIdx.x * (int64_t)blockDim.x + threadIdx.x; }

#define ENTRY extern "C" __global__ void
// Where a kernel finds it, instead of a copy that each thread has.
#define GIVEN const __grid_constant__

// The clock at all steps of the schedule, a thread for each interval, whose first step is number
// `before`.
ENTRY tabulate(GIVEN Batch batch, const int64_t* before, V* ticks) {
    const int64_t i = own_number();
    if (i + 1 < batch.times) tick_all(batch, i, ticks + before[i] * TICKS);
}

// Integrate all members; without `ticks`, everyone reads the clock himself.
ENTRY march(GIVEN Batch batch, GIVEN Outcome out, const V* ticks) {
    const int64_t m = own_number();
    if (m < batch.members) march_block(batch, m, out, ticks);
}

// Advance all members over one interval at one level, in place.
ENTRY cross_interval(
    GIVEN Batch batch, int64_t interval, int64_t level, real* y, real* k, real* error
) {
    const int64_t m = own_number();
    if (m < batch.members) cross_interval_block(batch, m, interval, level, y, k, error);
}

// The derivative of all members at the first time.
ENTRY slope(GIVEN Batch batch, real* k) {
    const int64_t m = own_number();
    if (m < batch.members) slope_block(batch, m, k);
}

// Pick the level of each interval on all members, a single block of at most PILOTS, as long as all
// can follow; how many intervals that is comes after the levels.
ENTRY pilot(GIVEN Batch batch, int64_t* levels) {
    __shared__ real squares[PILOTS];
    const int m = threadIdx.x;
    Block b;
    load(b, batch, m);
    int64_t level = 1, i = 0;
    while (i + 1 < batch.times) {
        const V t0 = time_at(batch, m, i), t1 = time_at(batch, m, i + 1);
        Block tried = b;
        cross(tried, t0, (t1 - t0) / (real)level, level, batch, nullptr, true);
        __syncthreads();  // all have read the errors of the last try
        squares[m] = tried.error[0];
        __syncthreads();
        // All threads come to the same verdict.
        const Verdict verdict = judge(squares, level, batch);
        if (verdict.broken) break;
        if (verdict.good) {
            if (m == 0) levels[i] = level;
            ++i;
            b = tried;
        }
        level = verdict.level;
    }
    if (m == 0) levels[batch.times - 1] = i;
}
