// Trajectories on their way to memory, where the numbers of a member lie in a row.
//
// A vector has one number of each member, and rows are far apart: written one by one, these numbers
// would cost as much as half a step. So a few vectors are kept, turned, and written as pieces of
// rows; memory is asked for in time, since what a core writes it has to read first.

INLINE V shuffled(V a, V b, M from) {
#ifdef __clang__
    V x;
    for (int l = 0; l < LANES; ++l) x[l] = from[l] < LANES ? a[from[l]] : b[from[l] - LANES];
    return x;
#else
    return __builtin_shuffle(a, b, from);
#endif
}

// Turn LANES vectors into those of their first numbers, of their second, and so on: in each pair
// of blocks of d x d numbers beside the diagonal, the two change places.
INLINE void turn(V* v) {
    UNROLL
    for (int d = 1; d < LANES; d *= 2) {
        M low, high;
        for (int l = 0; l < LANES; ++l) {
            low[l] = l & d ? LANES + l - d : l;
            high[l] = l & d ? LANES + l : l + d;
        }
        UNROLL
        for (int i = 0; i < LANES; ++i) {
            if (i & d) continue;
            const V a = v[i], b = v[i + d];
            v[i] = shuffled(a, b, low);
            v[i + d] = shuffled(a, b, high);
        }
    }
}

struct Rows {
    enum { SIZE = 4 * LANES, NEAR = 1 << 18 };
    V kept[SIZE];
    int size, count;  // vectors kept, members
    int64_t length;   // numbers of a member
    real* to;         // where those of the first one go
    char* next;       // what will be written after this block; null if that is far off
};

// Where `count` members from the first on are to be written, of numbers that begin at `all`.
INLINE Rows rows_of(real* all, int64_t first, int64_t length, int count, int64_t members) {
    Rows rows;
    rows.size = 0;
    rows.count = count;
    rows.length = length;
    rows.to = all + first * length;
    rows.next = length * sizeof(V) > Rows::NEAR ? nullptr : (char*)(rows.to + LANES * length);
    return rows;
}

NOINLINE void finish(Rows& rows) {
    int n = 0;
    for (; n + LANES <= rows.size; n += LANES) {
        V v[LANES];
        for (int i = 0; i < LANES; ++i) v[i] = rows.kept[n + i];
        turn(v);
        for (int l = 0; l < rows.count; ++l)
            memcpy(rows.to + l * rows.length + n, v + l, sizeof(V));
    }
    for (; n < rows.size; ++n)
        for (int l = 0; l < rows.count; ++l) rows.to[l * rows.length + n] = rows.kept[n][l];
    rows.to += rows.size;
    rows.size = 0;
}

// Write the next number of each member, sooner or later; `finish` does what is left.
INLINE void put(Rows& rows, V x) {
    if (rows.next) {
        // As many lines as the next block has.
        __builtin_prefetch(rows.next, 1);
        rows.next += sizeof(V);
    }
    rows.kept[rows.size++] = x;
    if (rows.size == Rows::SIZE) finish(rows);
}
