/* Linear layers with packed weights; a part of operations.h. */

#if AVX512
#define MOST_ROWS 12 /* whose sums stay in registers */
#else
#define MOST_ROWS 6
#endif
#if DOT
#define FACTORS pair
#else
#define FACTORS T
#endif

/* The rows of a block side by side, [width][MOST_ROWS]. */
static void NAME(interleave)(const linear_args *a, int64_t block) {
    const int64_t units = a->width / PER_PACKED, first = block * MOST_ROWS;
    FACTORS *to = (FACTORS *)a->interleaved + first * units;
    for (int64_t d = 0; d < units; d++)
        for (int64_t row = first; row < first + MOST_ROWS; row++, to++)
            *to = ((const FACTORS *)((const T *)a->inputs + (row < a->rows ? row : a->rows - 1) * a->width))[d];
}

/* A panel is two vectors of columns of the product; its weights lie one after the other, [width][2 * LANES], with DOT in
 * pairs of the width. Of `rows` rows only `left` exist. */
INLINE void NAME(multiply_panel)(const linear_args *a, int64_t panel, int64_t first, const int rows, int64_t left,
                                 const int interleaved) {
    const T *weights = (const T *)a->weight + panel * a->width * 2 * LANES;
    const FACTORS *inputs[MOST_ROWS];
    VEC sums[MOST_ROWS][2];
    for (int row = 0; row < rows; row++) {
        const int64_t at = first + (row < left ? row : left - 1);
        inputs[row] = interleaved ? (const FACTORS *)a->interleaved + first * (a->width / PER_PACKED) + row
                                  : (const FACTORS *)((const T *)a->inputs + at * a->width);
        sums[row][0] = sums[row][1] = spread(0);
    }
    const int64_t next = interleaved ? MOST_ROWS : 1;
    for (int64_t d = 0; d < a->width / PER_PACKED; d++, weights += 2 * LANES * PER_PACKED) {
        __builtin_prefetch(weights + AHEAD / sizeof(T));
        if (2 * LANES * PER_PACKED * sizeof(T) > 64) __builtin_prefetch(weights + (AHEAD + 64) / sizeof(T));
        for (int half = 0; half < 2; half++) {
#if DOT
            const UVEC w = *(const UVEC_UNALIGNED *)(weights + 2 * LANES * half);
            for (int row = 0; row < rows; row++)
                sums[row][half] = dot(sums[row][half], w, splat(inputs[row][d * next]));
#else
            const VEC w = NAME(load)(weights + LANES * half);
            for (int row = 0; row < rows; row++)
                sums[row][half] = FMA(w, spread(NAME(load_one)(inputs[row] + d * next)), sums[row][half]);
#endif
        }
    }
    for (int half = 0; half < 2; half++) {
        const int64_t column = (2 * panel + half) * LANES, columns = a->columns - column;
        const VEC bias = a->bias ? NAME(load_some)((const T *)a->bias + column, columns) : spread(0);
        for (int row = 0; row < rows && row < left && columns > 0; row++) {
            const VEC sum = a->bias ? sums[row][half] + bias : sums[row][half];
            NAME(store_some)((T *)a->out + (first + row) * a->columns + column, sum, columns);
        }
    }
}

INLINE void NAME(multiply_block)(const linear_args *a, int64_t panel, int64_t row, const int interleaved) {
    const int64_t left = a->rows - row;
    switch (left < MOST_ROWS ? left : MOST_ROWS) { /* a constant number of rows keeps the sums in registers */
        case 1: NAME(multiply_panel)(a, panel, row, 1, left, interleaved); break;
        case 2: NAME(multiply_panel)(a, panel, row, 2, left, interleaved); break;
        case 3:
        case 4: NAME(multiply_panel)(a, panel, row, 4, left, interleaved); break;
#if AVX512
        case 5:
        case 6: NAME(multiply_panel)(a, panel, row, 6, left, interleaved); break;
        case 7:
        case 8: NAME(multiply_panel)(a, panel, row, 8, left, interleaved); break;
#endif
        default: NAME(multiply_panel)(a, panel, row, MOST_ROWS, left, interleaved);
    }
}

static void NAME(linear_panel)(const linear_args *a, int64_t panel) {
    for (int64_t row = 0; row < a->rows; row += MOST_ROWS)
        if (a->interleaved)
            NAME(multiply_block)(a, panel, row, 1);
        else
            NAME(multiply_block)(a, panel, row, 0);
}
