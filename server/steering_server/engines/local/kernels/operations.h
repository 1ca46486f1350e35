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

#include "attention.h"
#include "rows.h"
#include "logits.h"
#include "linear.h"

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
