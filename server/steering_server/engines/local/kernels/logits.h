/* Logits in float32; a part of operations.h. */

/* Without DOT, what is multiplied is float32: the inputs come widened, and weights are widened here, once for
 * all rows. */
#if DOT
typedef T NAME(factor);
#define STEP 32
#define LOADED u32x16
#define LOADED_UNALIGNED u32x16_unaligned
#define TOTAL v16
#define MULTIPLY_ADD(x, y, total) dot(total, x, y)
#else
typedef float NAME(factor);
#define STEP 16
#define LOADED VEC
#define LOADED_UNALIGNED VEC_UNALIGNED
#define TOTAL VEC
#define MULTIPLY_ADD(x, y, total) FMA(x, y, total)
#endif
#define FACTOR NAME(factor)
#define LOADS (int)(sizeof(v16) / sizeof(TOTAL)) /* of a step */
#define LOAD(p, i) (*(const LOADED_UNALIGNED *)((p) + (i) * (STEP / LOADS)))

INLINE void NAME(add_products)(const FACTOR *const *inputs, int rows, const FACTOR *const *weights, int tokens, int64_t d,
                               TOTAL (*totals)[4][LOADS]) {
    LOADED w[4][LOADS];
    for (int token = 0; token < tokens; token++)
        for (int i = 0; i < LOADS; i++) w[token][i] = LOAD(weights[token] + d, i);
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < LOADS; i++) {
            LOADED x = LOAD(inputs[row] + d, i);
            for (int token = 0; token < tokens; token++)
                totals[row][token][i] = MULTIPLY_ADD(x, w[token][i], totals[row][token][i]);
        }
}

/* parts[4 * row + token] = inputs[row] * weights[token], summed up in 16 lanes. The next weights are fetched meanwhile,
 * `in_order` of their addresses or of their use. */
INLINE void NAME(multiply)(int64_t width, const FACTOR *const *inputs, int rows, const FACTOR *const *weights, int tokens,
                           int in_order, v16 *parts) {
    TOTAL totals[4][4][LOADS];
    for (int row = 0; row < rows; row++)
        for (int token = 0; token < tokens; token++)
            for (int i = 0; i < LOADS; i++) totals[row][token][i] = (TOTAL){0};
#if DOT || !BFLOAT16
    const char *ahead = (const char *)(weights[0] + 4 * width);
    const int64_t line = STEP * sizeof(FACTOR), by_token = in_order ? line : width * (int64_t)sizeof(FACTOR);
    const int64_t by_step = in_order ? tokens * line : line;
#endif
    int64_t d = 0;
    for (; d + STEP <= width; d += STEP) {
#if DOT || !BFLOAT16
        for (int token = 0; token < tokens; token++) __builtin_prefetch(ahead + token * by_token);
        ahead += by_step;
#endif
        NAME(add_products)(inputs, rows, weights, tokens, d, totals);
    }
    if (d < width) {
        FACTOR padded[8][STEP];
        const FACTOR *last[8];
        memset(padded, 0, sizeof padded);
        for (int i = 0; i < rows + tokens; i++) {
            memcpy(padded[i], (i < rows ? inputs[i] : weights[i - rows]) + d, (width - d) * sizeof(FACTOR));
            last[i] = padded[i];
        }
        NAME(add_products)(last, rows, last + rows, tokens, 0, totals);
    }
    for (int row = 0; row < rows; row++)
        for (int token = 0; token < tokens; token++) memcpy(&parts[4 * row + token], totals[row][token], sizeof(v16));
}

/* sums[4 * row + token] = inputs[row] . weights[token], for `rows` (at most 4) rows and four tokens */
INLINE void NAME(logits_4)(int64_t width, const FACTOR *const *inputs, int rows, const FACTOR *const *weights,
                           int in_order, float *sums) {
    v16 parts[16];
    for (int i = 0; i < 16; i++) parts[i] = (v16){0};
#if AVX512
    switch (rows) { /* a constant number of rows keeps the sums in registers */
        case 1: NAME(multiply)(width, inputs, 1, weights, 4, in_order, parts); break;
        case 2: NAME(multiply)(width, inputs, 2, weights, 4, in_order, parts); break;
        case 3: NAME(multiply)(width, inputs, 3, weights, 4, in_order, parts); break;
        default: NAME(multiply)(width, inputs, 4, weights, 4, in_order, parts);
    }
#else
    for (int token = 0; token < 4; token += 2) { /* there are registers for four sums */
        int row = 0;
        for (; row + 2 <= rows; row += 2)
            NAME(multiply)(width, inputs + row, 2, weights + token, 2, in_order, parts + 4 * row + token);
        if (row < rows) NAME(multiply)(width, inputs + row, 1, weights + token, 2, in_order, parts + 4 * row + token);
    }
#endif
    *(v16_unaligned *)sums = sum_each(parts);
}

static void NAME(logits_block)(const logits_args *a, int64_t block) {
    const int64_t first = block * TOKENS, end = first + TOKENS < a->vocabulary ? first + TOKENS : a->vocabulary;
    /* Memory is read faster in the order of addresses than in that of use, which serves many rows better: they hide it. */
    const int in_order = a->rows <= 8;
#if BFLOAT16 && !DOT
    float widened[4 * a->width];
#endif
    for (int64_t token = first; token < end; token += 4) {
        const FACTOR *weights[4];
        for (int i = 0; i < 4; i++) {
            const T *weight = (const T *)a->weight + (token + i < end ? token + i : end - 1) * a->width;
#if BFLOAT16 && !DOT
            float *wide = widened + i * a->width;
            int64_t d = 0;
            for (; d + LANES <= a->width; d += LANES) {
                *(VEC_UNALIGNED *)(wide + d) = NAME(load)(weight + d);
                __builtin_prefetch(weight + d + 4 * a->width);
            }
            for (; d < a->width; d++) wide[d] = widen(weight[d]);
            weights[i] = wide;
#else
            weights[i] = weight;
#endif
        }
        for (int64_t row = 0; row < a->rows; row += 4) {
            const FACTOR *inputs[4];
            float sums[16];
            const int rows = a->rows - row < 4 ? (int)(a->rows - row) : 4;
            for (int i = 0; i < rows; i++) inputs[i] = (const FACTOR *)a->inputs + (row + i) * a->width;
            NAME(logits_4)(a->width, inputs, rows, weights, in_order, sums);
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < 4 && token + j < end; j++)
                    a->out[(row + i) * a->vocabulary + token + j] = sums[4 * i + j];
        }
    }
}

#if !BFLOAT16
/* The largest of a row's logits, where it is (the first of equals), and the logarithm of the sum of the exponentials of
 * what they are less than it: log-probabilities are small differences, which a sum of both would round away. */
static void NAME(summary_row)(const summary_args *a, int64_t row) {
    const float *logits = a->logits + row * a->vocabulary;
    VEC most[4] = {spread(-INFINITY), spread(-INFINITY), spread(-INFINITY), spread(-INFINITY)}, total = spread(0);
    int64_t i = 0;
    for (; i + 4 * LANES <= a->vocabulary; i += 4 * LANES)
        for (int j = 0; j < 4; j++) most[j] = greater(*(const VEC_UNALIGNED *)(logits + i + LANES * j), most[j]);
    float largest = greatest(greater(greater(most[0], most[1]), greater(most[2], most[3])));
    for (int64_t j = i; j < a->vocabulary; j++)
        if (logits[j] > largest || logits[j] != logits[j]) largest = logits[j];
    int64_t likeliest = 0; /* skip what has no lane as large, 256 at a time */
    for (; likeliest + 256 <= a->vocabulary; likeliest += 256) {
        VEC best = *(const VEC_UNALIGNED *)(logits + likeliest);
        for (int64_t j = LANES; j < 256; j += LANES)
            best = greater(*(const VEC_UNALIGNED *)(logits + likeliest + j), best);
        if (greatest(best) == largest) break;
    }
    while (likeliest < a->vocabulary - 1 && logits[likeliest] != largest) likeliest++;
    if (a->log_total) {
        for (i = 0; i + LANES <= a->vocabulary; i += LANES)
            total += exponential(*(const VEC_UNALIGNED *)(logits + i) - spread(largest));
        if (i < a->vocabulary) {
            VEC rest = spread(-INFINITY);
            for (int64_t j = i; j < a->vocabulary; j++) rest[j - i] = logits[j];
            total += exponential(rest - spread(largest));
        }
        a->log_total[row] = logf(sum(total));
    }
    a->largest[row] = largest;
    a->likeliest[row] = likeliest;
}
#endif
