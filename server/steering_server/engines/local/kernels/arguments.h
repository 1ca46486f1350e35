/* Arguments of the kernels. */

typedef struct {
    const void *query;
    int64_t query_token, query_head;
    const void *keys, *values;
    int64_t cache_slot, cache_head, cache_length;
    const int64_t *segments; /* start, end, slot, position of each */
    void *attended;
    int64_t heads, kv_heads, head_dim, padded_dim, window, tile;
    float scale, cap;
    const int64_t *tiles; /* segment and first token of each */
} attention_args;

typedef struct {
    void *stream;
    const void *added, *gain;
    void *out;
    int64_t width;
    float epsilon;
} norm_args;

typedef struct {
    const void *gate_up;
    void *out;
    int64_t width;
} gate_args;

typedef struct {
    const void *qkv;
    int64_t qkv_row;
    const void *cos, *sin, *query_gain, *key_gain;
    void *queries, *keys;
    int64_t heads, kv_heads, head_dim, rotary_dim;
    float epsilon;
} rotary_args;

typedef struct {
    const void *keys;
    int64_t key_token, key_head;
    const void *values;
    int64_t value_token, value_head;
    void *cached_keys, *cached_values;
    int64_t cache_slot, cache_head;
    const int64_t *slots, *positions, *sources;
    int64_t kv_heads, head_dim;
} cache_args;

typedef struct {
    const void *inputs, *weight;
    float *out;
    int64_t rows, width, vocabulary;
} logits_args;

typedef struct {
    const void *inputs, *weight, *bias;
    void *out;
    int64_t rows, width, columns;
    void *interleaved; /* the inputs again, see SET; NULL where that is not needed */
} linear_args;

typedef struct {
    const float *logits;
    int64_t vocabulary;
    float *largest, *log_total;
    int64_t *likeliest;
} summary_args;
