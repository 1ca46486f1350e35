/* Norms, gated activations, rotary embeddings and copies to the KV cache, row by row; a part of operations.h. */

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
