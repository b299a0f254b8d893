// What all kernels share: a few functions of `V`, what they are given and what they give back.
//
// lanes.h, or on a GPU thread.h, comes before this file. Numbers of members lie as `place` says
// there.

// A NaN of either comes through, as in torch.
INLINE V vmax(V a, V b) { return (a > b) | (a != a) ? a : b; }
INLINE V vmin(V a, V b) { return (a < b) | (a != a) ? a : b; }

// A layer of a network: out = x w + bias, with entry (k, o) of the K x O matrix at w[k A + o B].
template <int K, int O, int A, int B>
INLINE void dense(const V* x, const real* w, const real* bias, V* out) {
    enum { TILE = 8 };
    int o = 0;
    ROLLED
    for (; o + TILE <= O; o += TILE) {
        V sum[TILE];
        for (int j = 0; j < TILE; ++j) sum[j] = bias ? splat(bias[o + j]) : V{};
        ROLLED
        for (int k = 0; k < K; ++k)
            for (int j = 0; j < TILE; ++j) sum[j] += x[k] * w[k * A + (o + j) * B];
        for (int j = 0; j < TILE; ++j) out[o + j] = sum[j];
    }
    for (; o < O; ++o) {
        V sum = bias ? splat(bias[o]) : V{};
        ROLLED
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
    real* y;           // the trajectories, T S numbers of each
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
