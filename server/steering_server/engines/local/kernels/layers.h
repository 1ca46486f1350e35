/* Layers of gated blocks, one after the other, without a return to Python between their operations.
 *
 * Python fills in the structs: engines/local/layer_stack.py has them in the same order.
 */

typedef struct {
    const void *weight, *bias;
    int64_t width, columns;
} product;

typedef struct {
    product qkv, output, gate_up, down;
    const void *attention_gain, *mlp_gain, *query_gain, *key_gain;
    void *cached_keys, *cached_values;
    int64_t window;
    double attention_epsilon, mlp_epsilon, head_epsilon, scale;
} layer;

typedef struct {
    int64_t is_bfloat16, threads, tokens;
    int64_t hidden_size, heads, kv_heads, head_dim, neurons, rotary_dim;
    int64_t cache_slot, cache_head, cache_length;
    const void *cos, *sin;
    const int64_t *slots, *positions, *sources, *segments;
    int64_t cached, segment_count, silent_layer; /* the layer that attends to nothing; -1 for none */
    void *stream, *normed, *qkv, *queries, *keys, *z, *attention_output, *gate_up, *activations, *mlp_output;
    int64_t is_pending; /* whether mlp_output is still to be added to the stream */
} step;

static int multiply_by(const step *s, const product *p, const void *inputs, void *out) {
    linear_args a = {inputs, p->weight, p->bias, out, s->tokens, p->width, p->columns, NULL};
    return multiply(&a, s->is_bfloat16, s->threads, run);
}

static void add_and_norm(const step *s, const void *added, const void *gain, double epsilon) {
    norm_args a = {s->stream, added, gain, s->normed, s->hidden_size, (float)epsilon};
    run(KERNELS(s->is_bfloat16)->add_norm, &a, s->tokens, s->hidden_size / 2, s->threads);
}

/* From the residual stream to the heads' outputs. */
static int attention_stage(step *s, const layer *l, int64_t index) {
    const kernels *used = KERNELS(s->is_bfloat16);
    const int64_t size = s->is_bfloat16 ? sizeof(uint16_t) : sizeof(float);
    const int64_t per_query = s->heads * s->head_dim, per_key = s->kv_heads * s->head_dim;
    add_and_norm(s, s->is_pending ? s->mlp_output : NULL, l->attention_gain, l->attention_epsilon);
    s->is_pending = 0;
    if (!multiply_by(s, &l->qkv, s->normed, s->qkv)) return 0;
    rotary_args r = {s->qkv, l->qkv.columns, s->cos, s->sin, l->query_gain, l->key_gain, s->queries, s->keys,
                     s->heads, s->kv_heads, s->head_dim, s->rotary_dim, (float)l->head_epsilon};
    run(used->rotary, &r, s->tokens, per_query + per_key, s->threads);
    cache_args c = {s->keys, per_key, s->head_dim, (const char *)s->qkv + (per_query + per_key) * size, l->qkv.columns,
                    s->head_dim, l->cached_keys, l->cached_values, s->cache_slot, s->cache_head, s->slots, s->positions,
                    s->sources, s->kv_heads, s->head_dim};
    run(used->cache, &c, s->cached, per_key / 4, s->threads);
    memset(s->z, 0, s->tokens * per_query * size); /* tokens of no segment get zeros */
    if (index == s->silent_layer) return 1;
    attention_args a = {s->queries, per_query, s->head_dim, l->cached_keys, l->cached_values, s->cache_slot, s->cache_head,
                        s->cache_length, s->segments, s->z, s->heads, s->kv_heads, s->head_dim, 0, l->window, 0,
                        (float)l->scale, 0, NULL};
    return attend_segments(&a, s->segment_count, s->is_bfloat16, s->threads, run);
}

/* From the heads' outputs to the neurons' activations. */
static int neurons_stage(step *s, const layer *l) {
    if (!multiply_by(s, &l->output, s->z, s->attention_output)) return 0;
    add_and_norm(s, s->attention_output, l->mlp_gain, l->mlp_epsilon);
    if (!multiply_by(s, &l->gate_up, s->normed, s->gate_up)) return 0;
    gate_args g = {s->gate_up, s->activations, s->neurons};
    run(KERNELS(s->is_bfloat16)->gate, &g, s->tokens, s->neurons * 2, s->threads);
    return 1;
}

/* From the neurons' activations to what the MLP adds to the stream, which the next layer does. */
static int output_stage(step *s, const layer *l) {
    s->is_pending = 1;
    return multiply_by(s, &l->down, s->activations, s->mlp_output);
}

/* layers, step, first stage, stage to end before; stages are counted from the first layer's, three a layer */
static PyObject *layers(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[4];
    if (!read_arguments(args, given, 4, n, 0, NULL)) return NULL;
    const layer *of_model = POINTER(0);
    step *s = POINTER(1);
    int done = 1;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t stage = n[2]; done && stage < n[3]; stage++) {
        const layer *l = of_model + stage / 3;
        switch (stage % 3) {
            case 0: done = attention_stage(s, l, stage / 3); break;
            case 1: done = neurons_stage(s, l); break;
            default: done = output_stage(s, l);
        }
    }
    Py_END_ALLOW_THREADS
    return done ? Py_NewRef(Py_None) : PyErr_NoMemory();
}
