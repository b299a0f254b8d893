// Signals: polynomials by pieces, evaluated at a time of each lane. Piece k starts at starts[k], the
// first counting also before; its polynomial is in powers of t - knots[k], lowest first, with U
// numbers a power.

INLINE real lane(const V* x, int i, int l) { return x[i][l]; }
INLINE real lane(const real* x, int i, int) { return x[i]; }

template <int K, int P, int U, typename T>
INLINE void look_up(V t, const T* starts, const T* knots, const T* powers, V* out) {
    V dt, a[P * U];
    for (int l = 0; l < LANES; ++l) {
        int k = 0, end = K;
        while (end - k > 1) {
            const int middle = (k + end) / 2;
            if (lane(starts, middle, l) <= t[l]) k = middle;
            else end = middle;
        }
        dt[l] = t[l] - lane(knots, k, l);
        for (int i = 0; i < P * U; ++i) a[i][l] = lane(powers, k * P * U + i, l);
    }
    for (int u = 0; u < U; ++u) {
        V sum = a[(P - 1) * U + u];
        for (int p = P - 2; p >= 0; --p) sum = a[p * U + u] + dt * sum;
        out[u] = sum;
    }
}
