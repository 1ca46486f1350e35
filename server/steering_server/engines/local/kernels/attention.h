/* Attention of tiles of tokens to blocks of keys; a part of operations.h. */

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
