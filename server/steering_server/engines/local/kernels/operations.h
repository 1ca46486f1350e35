/* The kernels for one element type and one instruction set; included by native.c once for each pair of them.
 *
 * NAME(x)   name of a function of this pair
 * BFLOAT16  1 where elements are bfloat16, 0 where they are float32
 * DOT       1 where the processor multiplies pairs of bfloat16 and adds them up in float32 (AVX512_BF16)
 *
 * A result depends on its own inputs alone: which other rows are computed beside it, and by how many threads, changes
 * neither the operations nor their order.
 */

#if BFLOAT16
typedef uint16_t NAME(element);
#else
typedef float NAME(element);
#endif
#define T NAME(element)

INLINE VEC NAME(load)(const T *p) {
#if BFLOAT16
    typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
    return (VEC)(__builtin_convertvector(*(const halves *)p, UVEC) << 16);
#else
    return *(const VEC_UNALIGNED *)p;
#endif
}

INLINE float NAME(load_one)(const T *p) {
#if BFLOAT16
    return widen(*p);
#else
    return *p;
#endif
}

INLINE void NAME(store_one)(T *p, float x) {
#if BFLOAT16
    *p = narrow(x);
#else
    *p = x;
#endif
}

/* Round to the element type and back. */
INLINE float NAME(rounded)(float x) {
#if BFLOAT16
    return widen(narrow(x));
#else
    return x;
#endif
}

INLINE VEC NAME(rounded_each)(VEC x) {
#if BFLOAT16
    return widen_each(narrow_each(x));
#else
    return x;
#endif
}

INLINE void NAME(store)(T *p, VEC x) {
#if BFLOAT16
    typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
    *(halves *)p = __builtin_convertvector(narrow_each(x), halves);
#else
    *(VEC_UNALIGNED *)p = x;
#endif
}

/* The first n elements of a vector, none where n is negative; the others are 0. */
INLINE VEC NAME(load_some)(const T *p, int64_t n) {
    T padded[LANES] = {0};
    if (n >= LANES) return NAME(load)(p);
    if (n > 0) memcpy(padded, p, n * sizeof(T));
    return NAME(load)(padded);
}

INLINE void NAME(store_some)(T *p, VEC x, int64_t n) {
    T padded[LANES];
    if (n >= LANES) {
        NAME(store)(p, x);
        return;
    }
    NAME(store)(padded, x);
    memcpy(p, padded, n * sizeof(T));
}

/* ---- attention ------------------------------------------------------------------------------------------------ */

#if DOT
#define PACKED uint32_t /* two elements that are multiplied and added together */
#define PER_PACKED 2
#else
#define PACKED float
#define PER_PACKED 1
#endif

/* Keys of a block, transposed: packed[d][key], for d in units of PER_PACKED elements. */
INLINE void NAME(pack_keys)(const attention_args *a, const T *keys, int64_t count, int64_t limit, PACKED *packed) {
    const int64_t units = a->padded_dim / PER_PACKED;
    for (int64_t first = 0; first < count; first += LANES)
        for (int64_t d = 0; d < units; d += LANES) {
            UVEC rows[LANES];
            const int64_t left = a->head_dim - d * PER_PACKED;
            for (int k = 0; k < LANES; k++) {
                const int64_t key = first + k < limit ? first + k : limit - 1;
                const T *from = keys + key * a->head_dim + d * PER_PACKED;
#if DOT
                if (left >= 2 * LANES)
                    rows[k] = *(const UVEC_UNALIGNED *)from;
                else {
                    uint32_t some[LANES] = {0};
                    memcpy(some, from, left * sizeof(T));
                    rows[k] = *(const UVEC_UNALIGNED *)some;
                }
#else
                rows[k] = (UVEC)NAME(load_some)(from, left);
#endif
            }
            transpose(rows);
            for (int k = 0; k < LANES && d + k < units; k++)
                *(UVEC_UNALIGNED *)(packed + (d + k) * BLOCK + first) = rows[k];
        }
}

/* Values of a block: packed[key][d], for keys in units of PER_PACKED. */
INLINE void NAME(pack_values)(const attention_args *a, const T *values, int64_t count, int64_t limit, PACKED *packed) {
    for (int64_t key = 0; key < count; key += PER_PACKED)
        for (int64_t d = 0; d < a->padded_dim; d += LANES) {
            const int64_t left = a->head_dim - d;
            PACKED *to = packed + key / PER_PACKED * a->padded_dim + d;
            VEC even = NAME(load_some)(values + key * a->head_dim + d, left);
#if DOT
            const int64_t next = key + 1 < limit ? key + 1 : limit - 1;
            VEC odd = NAME(load_some)(values + next * a->head_dim + d, left);
            *(UVEC_UNALIGNED *)to = ((UVEC)even >> 16) | (UVEC)odd;
#else
            *(VEC_UNALIGNED *)to = even;
#endif
        }
    (void)limit;
}

/* scores[row][key] of four rows and a block of keys */
INLINE void NAME(score)(const attention_args *a, const PACKED *queries, const PACKED *keys, int64_t count,
                        float (*scores)[BLOCK]) {
    const int64_t units = a->padded_dim / PER_PACKED;
    for (int64_t first = 0; first < count; first += 2 * LANES) {
        VEC sums[4][2] = {{{0}}};
        const PACKED *column = keys + first;
        for (int64_t d = 0; d < units; d++, column += BLOCK)
            for (int row = 0; row < 4; row++) {
                PACKED q = queries[row * units + d];
                for (int half = 0; half < 2; half++)
#if DOT
                    sums[row][half] = dot(sums[row][half], *(const UVEC_UNALIGNED *)(column + LANES * half), splat(q));
#else
                    sums[row][half] = FMA(*(const VEC_UNALIGNED *)(column + LANES * half), spread(q), sums[row][half]);
#endif
            }
        for (int row = 0; row < 4; row++)
            for (int half = 0; half < 2; half++)
                *(VEC_UNALIGNED *)(scores[row] + first + LANES * half) = sums[row][half];
    }
}

/* attended[row][d] += weights[row][key] values[key][d], of four rows and a block of keys */
INLINE void NAME(add_values)(const attention_args *a, const PACKED (*weights)[BLOCK / PER_PACKED], const PACKED *values,
                             int64_t count, float *attended) {
    for (int64_t d = 0; d < a->padded_dim; d += 2 * LANES) {
        const int two = d + LANES < a->padded_dim;
        VEC sums[4][2];
        for (int row = 0; row < 4; row++)
            for (int half = 0; half <= two; half++)
                sums[row][half] = *(const VEC_UNALIGNED *)(attended + row * a->padded_dim + d + LANES * half);
        const PACKED *from = values + d;
        for (int64_t key = 0; key < (count + PER_PACKED - 1) / PER_PACKED; key++, from += a->padded_dim)
            for (int row = 0; row < 4; row++) {
                PACKED weight = weights[row][key];
                for (int half = 0; half <= two; half++)
#if DOT
                    sums[row][half] = dot(sums[row][half], *(const UVEC_UNALIGNED *)(from + LANES * half), splat(weight));
#else
                    sums[row][half] = FMA(*(const VEC_UNALIGNED *)(from + LANES * half), spread(weight), sums[row][half]);
#endif
            }
        for (int row = 0; row < 4; row++)
            for (int half = 0; half <= two; half++)
                *(VEC_UNALIGNED *)(attended + row * a->padded_dim + d + LANES * half) = sums[row][half];
    }
}

/* One tile: some tokens of one segment, and the query heads of one key-value head. */
static void NAME(attend_tile)(const attention_args *a, int64_t tile) {
    const int64_t kv_head = tile % a->kv_heads;
    const int64_t *segment = a->segments + 4 * a->tiles[2 * (tile / a->kv_heads)];
    const int64_t first = a->tiles[2 * (tile / a->kv_heads) + 1];
    const int64_t tokens = segment[1] - first < a->tile ? segment[1] - first : a->tile;
    const int64_t group = a->heads / a->kv_heads, rows = tokens * group, padded = (rows + 3) & ~3;
    const int64_t units = a->padded_dim / PER_PACKED;
    const int64_t position = segment[3] + first - segment[0];
    char scratch[((padded + BLOCK) * units + BLOCK / PER_PACKED * a->padded_dim) * sizeof(PACKED) +
                 padded * a->padded_dim * sizeof(float)] __attribute__((aligned(64)));
    PACKED *queries = (PACKED *)scratch;
    PACKED *keys = queries + padded * units;
    PACKED *values = keys + BLOCK * units;
    float *attended = (float *)(values + BLOCK / PER_PACKED * a->padded_dim);
    memset(queries, 0, padded * units * sizeof(PACKED));
    memset(attended, 0, padded * a->padded_dim * sizeof(float));
    for (int64_t row = 0; row < rows; row++) {
        const T *from = (const T *)a->query + (first + row / group) * a->query_token +
                        (kv_head * group + row % group) * a->query_head;
#if DOT
        memcpy(queries + row * units, from, a->head_dim * sizeof(T));
#else
        for (int64_t d = 0; d < a->head_dim; d++) queries[row * units + d] = NAME(load_one)(from + d);
#endif
    }
    const T *slot_keys = (const T *)a->keys + segment[2] * a->cache_slot + kv_head * a->cache_head;
    const T *slot_values = (const T *)a->values + segment[2] * a->cache_slot + kv_head * a->cache_head;
    float largest[MAX_ROWS];
    VEC totals[MAX_ROWS];
    for (int64_t row = 0; row < padded; row++) {
        largest[row] = -INFINITY;
        totals[row] = spread(0);
    }
    const int64_t end = position + tokens;
    const int64_t begin = a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
    for (int64_t start = begin / BLOCK * BLOCK; start < end; start += BLOCK) {
        const int64_t count = end - start < BLOCK ? end - start : BLOCK;
        NAME(pack_keys)(a, slot_keys + start * a->head_dim, count, a->cache_length - start, keys);
        NAME(pack_values)(a, slot_values + start * a->head_dim, count, a->cache_length - start, values);
        for (int64_t four = 0; four < padded; four += 4) {
            float scores[4][BLOCK] __attribute__((aligned(64)));
            PACKED weights[4][BLOCK / PER_PACKED] __attribute__((aligned(64)));
            NAME(score)(a, queries + four * units, keys, count, scores);
            for (int row = 0; row < 4; row++) {
                const int64_t at = position + (four + row < rows ? (four + row) / group : 0);
                const int64_t from = a->window > 0 ? at - a->window - start : -1;
                const float before = largest[four + row];
                VEC s[BLOCK / LANES], most = spread(before);
                for (int part = 0; part < BLOCK / LANES; part++) {
                    if (LANES * part >= count) {
                        s[part] = spread(-INFINITY);
                        continue;
                    }
                    s[part] = *(VEC_UNALIGNED *)(scores[row] + LANES * part) * spread(a->scale);
                    if (a->cap > 0) s[part] = hyperbolic_tangent(s[part] / spread(a->cap)) * spread(a->cap);
                    if (start + LANES * part + LANES - 1 > at || LANES * part <= from)
                        s[part] = seen(s[part], LANES * part, from, at - start);
                    most = greater(s[part], most);
                }
                float now = greatest(most);
                const float origin = now == -INFINITY ? 0 : now;
                VEC total = spread(0);
                for (int part = 0; part < BLOCK / LANES; part++) {
                    VEC weight = NAME(rounded_each)(exponential(s[part] - spread(origin)));
                    total += weight;
#if DOT
                    NAME(store)((T *)weights[row] + LANES * part, weight);
#else
                    *(VEC_UNALIGNED *)(weights[row] + LANES * part) = weight;
#endif
                }
                if (now != before) {
                    const VEC shrink = exponential(spread(before - origin));
                    totals[four + row] *= shrink;
                    for (int64_t d = 0; d < a->padded_dim; d += LANES)
                        *(VEC_UNALIGNED *)(attended + (four + row) * a->padded_dim + d) *= shrink;
                    largest[four + row] = now;
                }
                totals[four + row] += total;
            }
            NAME(add_values)(a, weights, values, count, attended + four * a->padded_dim);
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        T *to = (T *)a->attended + ((first + row / group) * a->heads + kv_head * group + row % group) * a->head_dim;
        const VEC total = spread(sum(totals[row]));
        for (int64_t d = 0; d < a->head_dim; d += LANES)
            NAME(store_some)
        (to + d, *(VEC_UNALIGNED *)(attended + row * a->padded_dim + d) / total, a->head_dim - d);
    }
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

/* stream += added, then out = norm(stream) */
static void NAME(add_norm_row)(const norm_args *a, int64_t row) {
    T *stream = (T *)a->stream + row * a->width, *out = (T *)a->out + row * a->width;
    const T *added = a->added ? (const T *)a->added + row * a->width : NULL, *gain = (const T *)a->gain;
    VEC squares = spread(0);
    for (int64_t i = 0; i < a->width; i += LANES) {
        const int64_t left = a->width - i;
        VEC x = NAME(load_some)(stream + i, left);
        if (added) {
            x = NAME(rounded_each)(x + NAME(load_some)(added + i, left));
            NAME(store_some)(stream + i, x, left);
        }
        squares = FMA(x, x, squares);
    }
    if (!gain) return;
    const VEC scale = spread(1 / sqrtf(sum(squares) / a->width + a->epsilon));
    for (int64_t i = 0; i < a->width; i += LANES) {
        const int64_t left = a->width - i;
        VEC x = NAME(load_some)(stream + i, left) * scale;
        NAME(store_some)(out + i, NAME(rounded_each)(x) * NAME(load_some)(gain + i, left), left);
    }
}

/* out = activation(gate) * up, of [gate | up] */
static void NAME(gate_row)(const gate_args *a, int64_t row) {
    const T *gate = (const T *)a->gate_up + row * 2 * a->width, *up = gate + a->width;
    T *out = (T *)a->out + row * a->width;
    for (int64_t i = 0; i < a->width; i += LANES) {
        const int64_t left = a->width - i;
        VEC x = NAME(load_some)(gate + i, left);
        VEC open = x / (spread(1) + exponential(-x));
        NAME(store_some)(out + i, NAME(rounded_each)(open) * NAME(load_some)(up + i, left), left);
    }
}

/* An RMS norm of one head in place, as some models have for queries and keys. */
INLINE void NAME(norm_head)(const rotary_args *a, const T *gain, const T *from, T *to) {
    VEC squares = spread(0);
    for (int64_t i = 0; i < a->head_dim; i += LANES) {
        VEC x = NAME(load_some)(from + i, a->head_dim - i);
        squares = FMA(x, x, squares);
    }
    const VEC scale = spread(1 / sqrtf(sum(squares) / a->head_dim + a->epsilon));
    for (int64_t i = 0; i < a->head_dim; i += LANES) {
        const int64_t left = a->head_dim - i;
        VEC x = NAME(load_some)(from + i, left) * scale;
        NAME(store_some)(to + i, NAME(rounded_each)(x) * NAME(load_some)(gain + i, left), left);
    }
}

/* Rotate the first rotary_dim elements of a head: x cos + (second half negated, first half) sin. */
INLINE void NAME(rotate_head)(const rotary_args *a, const T *cos, const T *sin, const T *from, T *to) {
    const int64_t half = a->rotary_dim / 2;
    for (int64_t i = 0; i < half; i += LANES) {
        const int64_t left = half - i;
        const VEC x = NAME(load_some)(from + i, left), y = NAME(load_some)(from + half + i, left);
        const VEC first = NAME(rounded_each)(x * NAME(load_some)(cos + i, left));
        const VEC second = NAME(rounded_each)(y * NAME(load_some)(cos + half + i, left));
        const VEC first_turned = NAME(rounded_each)(-y * NAME(load_some)(sin + i, left));
        const VEC second_turned = NAME(rounded_each)(x * NAME(load_some)(sin + half + i, left));
        NAME(store_some)(to + i, first + first_turned, left);
        NAME(store_some)(to + half + i, second + second_turned, left);
    }
    if (from != to) memcpy(to + a->rotary_dim, from + a->rotary_dim, (a->head_dim - a->rotary_dim) * sizeof(T));
}

static void NAME(rotary_row)(const rotary_args *a, int64_t row) {
    const T *fused = (const T *)a->qkv + row * a->qkv_row;
    const T *cos = (const T *)a->cos + row * a->rotary_dim, *sin = (const T *)a->sin + row * a->rotary_dim;
    T normed[MAX_HEAD_DIM];
    for (int64_t head = 0; head < a->heads + a->kv_heads; head++) {
        const int is_key = head >= a->heads;
        const T *from = fused + head * a->head_dim, *gain = (const T *)(is_key ? a->key_gain : a->query_gain);
        T *to = is_key ? (T *)a->keys + (row * a->kv_heads + head - a->heads) * a->head_dim
                       : (T *)a->queries + (row * a->heads + head) * a->head_dim;
        if (gain) {
            NAME(norm_head)(a, gain, from, normed);
            from = normed;
        }
        NAME(rotate_head)(a, cos, sin, from, to);
    }
}

/* Copy a token's keys or values, [kv_heads, head_dim] with a stride between heads, to its place in the cache. */
static void NAME(cache_row)(const cache_args *a, int64_t row) {
    const int64_t from = a->sources ? a->sources[row] : row;
    const int64_t place = a->slots[row] * a->cache_slot + a->positions[row] * a->head_dim;
    for (int64_t head = 0; head < a->kv_heads; head++) {
        memcpy((T *)a->cached_keys + place + head * a->cache_head,
               (const T *)a->keys + from * a->key_token + head * a->key_head, a->head_dim * sizeof(T));
        memcpy((T *)a->cached_values + place + head * a->cache_head,
               (const T *)a->values + from * a->value_token + head * a->value_head, a->head_dim * sizeof(T));
    }
}

/* ---- logits --------------------------------------------------------------------------------------------------- */

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

/* ---- linear layers -------------------------------------------------------------------------------------------- */

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

static const kernels NAME(table) = {
    .attend = (task)NAME(attend_tile),
    .add_norm = (task)NAME(add_norm_row),
    .gate = (task)NAME(gate_row),
    .rotary = (task)NAME(rotary_row),
    .cache = (task)NAME(cache_row),
    .logits = (task)NAME(logits_block),
    .linear = (task)NAME(linear_panel),
    .interleave = (task)NAME(interleave),
    .columns = 2 * LANES,
    .paired = PER_PACKED,
    .most_rows = MOST_ROWS,
#if !BFLOAT16
    .summary = (task)NAME(summary_row),
#endif
    .widens = !DOT,
};

#undef MOST_ROWS
#undef FACTORS
#undef T
#undef PACKED
#undef PER_PACKED
#undef STEP
#undef LOAD
#undef LOADED
#undef MULTIPLY_ADD
#undef FACTOR
#undef LOADS
#undef LOADED_UNALIGNED
#undef TOTAL
