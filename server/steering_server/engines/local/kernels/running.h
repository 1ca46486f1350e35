/* Kernels in use, and their pieces of work on several threads. */

typedef void (*parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);

static parallel gomp_parallel; /* PyTorch's: a second pool of threads on the same cores would slow both down */
static const kernels *float32_kernels = &table_float32_plain, *bfloat16_kernels = &table_bfloat16_plain;
static const char *instructions = "plain";

typedef struct {
    task function;
    const void *args;
    int64_t count, at_a_time, next;
} work;

static void take_work(void *data) {
    work *w = data;
    for (;;) {
        int64_t first = __atomic_fetch_add(&w->next, w->at_a_time, __ATOMIC_RELAXED);
        if (first >= w->count) return;
        int64_t end = first + w->at_a_time < w->count ? first + w->at_a_time : w->count;
        for (int64_t i = first; i < end; i++) w->function(w->args, i);
    }
}

/* Do `count` pieces of work of `cost` operations each, by several threads where that is worth waking them. */
static void run(task function, const void *args, int64_t count, int64_t cost, int64_t threads) {
    work w = {function, args, count, 1, 0};
    if (threads > count) threads = count;
    if (threads < 2 || count * cost < 40000 || !gomp_parallel) {
        for (int64_t i = 0; i < count; i++) function(args, i);
        return;
    }
    w.at_a_time = count / (threads * 8) > 0 ? count / (threads * 8) : 1;
    gomp_parallel(take_work, &w, (unsigned)threads, 0);
}

/* The same, by a thread that holds Python's lock: others may run meanwhile where it takes long. */
static void run_unlocked(task function, const void *args, int64_t count, int64_t cost, int64_t threads) {
    if (count * cost < 1000000) {
        run(function, args, count, cost, threads);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    run(function, args, count, cost, threads);
    Py_END_ALLOW_THREADS
}

#define KERNELS(is_bfloat16) (is_bfloat16 ? bfloat16_kernels : float32_kernels)

typedef void (*runner)(task function, const void *args, int64_t count, int64_t cost, int64_t threads);

/* Attend in tiles of tokens; `padded_dim`, `tile` and `tiles` are filled in. Returns 0 where there is no memory. */
static int attend_segments(attention_args *a, int64_t count, int64_t is_bfloat16, int64_t threads, runner by) {
    const int64_t *segments = a->segments, group = a->heads / a->kv_heads, lanes = is_bfloat16 ? 32 : 16;
    a->padded_dim = (a->head_dim + lanes - 1) & -lanes;
    a->tile = group < TILE_ROWS ? TILE_ROWS / group : 1;
    int64_t tiles = 0, cost = 0;
    for (int64_t i = 0; i < count; i++) tiles += (segments[4 * i + 1] - segments[4 * i] + a->tile - 1) / a->tile;
    if (!tiles) return 1;
    int64_t *list = malloc(2 * tiles * sizeof(int64_t)), *next = list;
    if (!list) return 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t first = segments[4 * i]; first < segments[4 * i + 1]; first += a->tile, next += 2) {
            next[0] = i, next[1] = first;
            cost += (segments[4 * i + 3] + first - segments[4 * i] + BLOCK) * a->head_dim / 4;
        }
    a->tiles = list;
    by(KERNELS(is_bfloat16)->attend, a, tiles * a->kv_heads, cost / tiles, threads);
    free(list);
    return 1;
}

/* Multiply by a packed weight; `interleaved` is filled in. Returns 0 where there is no memory. */
static int multiply(linear_args *a, int64_t is_bfloat16, int64_t threads, runner by) {
    const kernels *used = KERNELS(is_bfloat16);
    const int64_t size = is_bfloat16 ? sizeof(uint16_t) : sizeof(float);
    a->interleaved = NULL;
    if (a->rows > 4 && a->width * size % SET == 0) {
        const int64_t blocks = (a->rows + used->most_rows - 1) / used->most_rows;
        a->interleaved = malloc(blocks * used->most_rows * a->width * size);
        if (!a->interleaved) return 0;
        by(used->interleave, a, blocks, used->most_rows * a->width, threads);
    }
    by(used->linear, a, (a->columns + used->columns - 1) / used->columns, used->columns * a->rows * a->width, threads);
    free(a->interleaved);
    return 1;
}
