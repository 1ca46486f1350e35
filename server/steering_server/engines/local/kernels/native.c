/* Kernels for CPUs whose results do not depend on what else is computed beside them.
 *
 * The module takes addresses and sizes; kernels/__init__.py is what calls it, and checks them. It uses the stable ABI of
 * Python, so that one build serves every version from 3.11 on, and no symbol of PyTorch.
 */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define BLOCK 64        /* keys that are attended to at a time; positions are counted from the sequence's first token */
#define TILE_ROWS 48    /* query heads times tokens that share the keys of a tile */
#define MAX_ROWS 132
#define MAX_HEAD_DIM 512
#define TOKENS 64        /* of the vocabulary, whose logits are computed at a time */
#define SET 4096         /* bytes: rows that are so far apart share places in the cache, and drive each other out of it */
#define AHEAD 2048       /* bytes by which weights are fetched before they are multiplied */

typedef float v16 __attribute__((vector_size(64)));
typedef float v16_unaligned __attribute__((vector_size(64), aligned(4), may_alias));
typedef float v8 __attribute__((vector_size(32)));
typedef float v8_unaligned __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16_unaligned __attribute__((vector_size(64), aligned(2), may_alias));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x8_unaligned __attribute__((vector_size(32), aligned(2), may_alias));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef uint32_t pair __attribute__((aligned(2), may_alias)); /* two of bfloat16 */

#include "arguments.h"

/* One piece of work of a kernel; pieces are independent of each other. */
typedef void (*task)(const void *args, int64_t index);

typedef struct {
    task attend, add_norm, gate, rotary, cache, logits, linear, interleave, summary;
    int64_t columns, paired, most_rows; /* of a panel of `linear`; of the width, at once; rows that share a weight */
    int widens; /* `logits` takes inputs in float32 whatever the weights are in */
} kernels;

/* bfloat16 is the upper half of a float32; rounded to nearest, ties to even. */
INLINE float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}
INLINE uint16_t narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define HALF(x, y) __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define OTHER_HALF(x, y) __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define QUARTER(x, y) __builtin_shufflevector(x, y, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define OTHER_QUARTER(x, y) __builtin_shufflevector(x, y, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define PAIR(x, y) __builtin_shufflevector(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define OTHER_PAIR(x, y) __builtin_shufflevector(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define ONE(x, y) __builtin_shufflevector(x, y, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define OTHER(x, y) __builtin_shufflevector(x, y, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)

#define QUARTER8(x, y) __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11)
#define OTHER_QUARTER8(x, y) __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15)
#define PAIR8(x, y) __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13)
#define OTHER_PAIR8(x, y) __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15)
#define ONE8(x, y) __builtin_shufflevector(x, y, 0, 8, 2, 10, 4, 12, 6, 14)
#define OTHER8(x, y) __builtin_shufflevector(x, y, 1, 9, 3, 11, 5, 13, 7, 15)

/* Each set of instructions gets its own copy of every kernel. */
#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)

#define splat V(splat)
#define spread V(spread)
#define widen_each V(widen_each)
#define choose V(choose)
#define greater V(greater)
#define greatest V(greatest)
#define narrow_each V(narrow_each)
#define exponential V(exponential)
#define hyperbolic_tangent V(hyperbolic_tangent)
#define seen V(seen)
#define sum_each V(sum_each)
#define transpose V(transpose)
#define sum V(sum)
#define FMA(x, y, total) ((x) * (y) + (total))
#define AVX512 0
#define DOT 0
#define V(x) PASTE(x, plain)
#include "vectors.h"
#define BFLOAT16 0
#define NAME(x) PASTE(x, float32_plain)
#include "operations.h"
#undef NAME
#undef BFLOAT16
#define BFLOAT16 1
#define NAME(x) PASTE(x, bfloat16_plain)
#include "operations.h"
#undef NAME
#undef BFLOAT16

#undef V
#undef WHERE_GREATER
#undef WHERE_NAN

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define V(x) PASTE(x, avx2)
#include "vectors.h"
#define BFLOAT16 0
#define NAME(x) PASTE(x, float32_avx2)
#include "operations.h"
#undef NAME
#undef BFLOAT16
#define BFLOAT16 1
#define NAME(x) PASTE(x, bfloat16_avx2)
#include "operations.h"
#undef NAME
#undef BFLOAT16
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")
#endif
#undef V
#undef WHERE_GREATER
#undef WHERE_NAN
#undef FMA
#undef AVX512
#define AVX512 1
#define V(x) PASTE(x, avx512)
#include "vectors.h"
#define FMA(x, y, total) ((v16)_mm512_fmadd_ps((__m512)(x), (__m512)(y), (__m512)(total)))
#define BFLOAT16 0
#define NAME(x) PASTE(x, float32_avx512)
#include "operations.h"
#undef NAME
#undef BFLOAT16
#define BFLOAT16 1
#define NAME(x) PASTE(x, bfloat16_avx512)
#include "operations.h"
#undef NAME
#undef BFLOAT16
#undef DOT
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,prefer-vector-width=512")
#endif
INLINE v16 dot(v16 sums, u32x16 x, u32x16 y) {
    return (v16)_mm512_dpbf16_ps((__m512)sums, (__m512bh)x, (__m512bh)y);
}
#define DOT 1
#define BFLOAT16 1
#define NAME(x) PASTE(x, bfloat16_dot)
#include "operations.h"
#undef NAME
#undef BFLOAT16
#undef DOT
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* ---- threads and the module ----------------------------------------------------------------------------------- */

#include "running.h"

static void choose_instructions(const char *most) {
    const int any = !most[0];
#if defined(__x86_64__) && defined(__GNUC__)
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const int bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (bf16 && (any || !strcmp(most, "avx512_bf16"))) {
        float32_kernels = &table_float32_avx512, bfloat16_kernels = &table_bfloat16_dot, instructions = "avx512_bf16";
        return;
    }
    if (avx512 && (any || !strcmp(most, "avx512"))) {
        float32_kernels = &table_float32_avx512, bfloat16_kernels = &table_bfloat16_avx512, instructions = "avx512";
        return;
    }
    if (avx2 && (any || !strcmp(most, "avx2"))) {
        float32_kernels = &table_float32_avx2, bfloat16_kernels = &table_bfloat16_avx2, instructions = "avx2";
        return;
    }
#endif
    float32_kernels = &table_float32_plain, bfloat16_kernels = &table_bfloat16_plain, instructions = "plain";
}

/* Read `count` whole numbers, then the rest as floating-point ones. */
static int read_arguments(PyObject *const *args, Py_ssize_t given, Py_ssize_t count, int64_t *integers, Py_ssize_t floats,
                float *reals) {
    if (given != count + floats) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are needed, and there are %zd", count + floats, given);
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        integers[i] = PyLong_AsLongLong(args[i]);
        if (integers[i] == -1 && PyErr_Occurred()) return 0;
    }
    for (Py_ssize_t i = 0; i < floats; i++) {
        double value = PyFloat_AsDouble(args[count + i]);
        if (value == -1 && PyErr_Occurred()) return 0;
        reals[i] = (float)value;
    }
    return 1;
}

#define POINTER(i) ((void *)(intptr_t)n[i])

static PyObject *configure(PyObject *self, PyObject *args) {
    unsigned long long address;
    const char *most;
    if (!PyArg_ParseTuple(args, "Ks", &address, &most)) return NULL;
    gomp_parallel = (parallel)(uintptr_t)address;
    choose_instructions(most);
    return PyUnicode_FromString(instructions);
}

/* is_bfloat16, threads, query, query_token, query_head, keys, values, cache_slot, cache_head, cache_length, segments,
 * segment count, attended, heads, kv_heads, head_dim, window; scale, cap */
static PyObject *attend(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[17];
    float x[2];
    if (!read_arguments(args, given, 17, n, 2, x)) return NULL;
    attention_args a = {POINTER(2), n[3], n[4], POINTER(5), POINTER(6), n[7], n[8], n[9], POINTER(10), POINTER(12),
                        n[13], n[14], n[15], 0, n[16], 0, x[0], x[1], NULL};
    return attend_segments(&a, n[11], n[0], n[1], run_unlocked) ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

/* is_bfloat16, threads, stream, added, gain, out, rows, width; epsilon */
static PyObject *add_norm(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[8];
    float x[1];
    if (!read_arguments(args, given, 8, n, 1, x)) return NULL;
    norm_args a = {POINTER(2), POINTER(3), POINTER(4), POINTER(5), n[7], x[0]};
    run_unlocked(KERNELS(n[0])->add_norm, &a, n[6], n[7] / 2, n[1]);
    Py_RETURN_NONE;
}

/* is_bfloat16, threads, gate_up, out, rows, width */
static PyObject *gate(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[6];
    if (!read_arguments(args, given, 6, n, 0, NULL)) return NULL;
    gate_args a = {POINTER(2), POINTER(3), n[5]};
    run_unlocked(KERNELS(n[0])->gate, &a, n[4], n[5] * 2, n[1]);
    Py_RETURN_NONE;
}

/* is_bfloat16, threads, qkv, qkv_row, cos, sin, query_gain, key_gain, queries, keys, rows, heads, kv_heads, head_dim,
 * rotary_dim; epsilon */
static PyObject *rotary(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[15];
    float x[1];
    if (!read_arguments(args, given, 15, n, 1, x)) return NULL;
    rotary_args a = {POINTER(2), n[3], POINTER(4), POINTER(5), POINTER(6), POINTER(7), POINTER(8), POINTER(9),
                     n[11], n[12], n[13], n[14], x[0]};
    run_unlocked(KERNELS(n[0])->rotary, &a, n[10], (n[11] + n[12]) * n[13], n[1]);
    Py_RETURN_NONE;
}

/* is_bfloat16, threads, keys, key_token, key_head, values, value_token, value_head, cached_keys, cached_values, cache_slot,
 * cache_head, slots, positions, sources, rows, kv_heads, head_dim */
static PyObject *cache(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[18];
    if (!read_arguments(args, given, 18, n, 0, NULL)) return NULL;
    cache_args a = {POINTER(2), n[3], n[4], POINTER(5), n[6], n[7], POINTER(8), POINTER(9), n[10], n[11],
                    POINTER(12), POINTER(13), POINTER(14), n[16], n[17]};
    run_unlocked(KERNELS(n[0])->cache, &a, n[15], n[16] * n[17] / 4, n[1]);
    Py_RETURN_NONE;
}

/* is_bfloat16, threads, inputs, weight, out, rows, width, vocabulary */
static PyObject *logits(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[8];
    if (!read_arguments(args, given, 8, n, 0, NULL)) return NULL;
    logits_args a = {POINTER(2), POINTER(3), POINTER(4), n[5], n[6], n[7]};
    const kernels *used = KERNELS(n[0]);
    float *widened = NULL;
    if (n[0] && used->widens) {
        const uint16_t *narrow_inputs = a.inputs;
        widened = PyMem_Malloc(n[5] * n[6] * sizeof(float));
        if (!widened) return PyErr_NoMemory();
        for (int64_t i = 0; i < n[5] * n[6]; i++) widened[i] = widen(narrow_inputs[i]);
        a.inputs = widened;
    }
    run_unlocked(used->logits, &a, (n[7] + TOKENS - 1) / TOKENS, TOKENS * n[6] * n[5], n[1]);
    PyMem_Free(widened);
    Py_RETURN_NONE;
}

/* is_bfloat16, threads, inputs, weight, bias, out, rows, width, columns */
static PyObject *linear(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[9];
    if (!read_arguments(args, given, 9, n, 0, NULL)) return NULL;
    linear_args a = {POINTER(2), POINTER(3), POINTER(4), POINTER(5), n[6], n[7], n[8], NULL};
    return multiply(&a, n[0], n[1], run_unlocked) ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

/* is_bfloat16; returns the columns of a panel of a packed weight, and how many of its width lie together */
static PyObject *panel(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[1];
    if (!read_arguments(args, given, 1, n, 0, NULL)) return NULL;
    return Py_BuildValue("LL", (long long)KERNELS(n[0])->columns, (long long)KERNELS(n[0])->paired);
}

/* threads, logits, rows, vocabulary, largest, log_total, likeliest */
static PyObject *summary(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[7];
    if (!read_arguments(args, given, 7, n, 0, NULL)) return NULL;
    summary_args a = {POINTER(1), n[3], POINTER(4), POINTER(5), POINTER(6)};
    run_unlocked(float32_kernels->summary, &a, n[2], n[3] * (n[5] ? 2 : 1), n[0]);
    Py_RETURN_NONE;
}

#include "layers.h"

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    {"configure", configure, METH_VARARGS, NULL},
    FAST(attend), FAST(add_norm), FAST(gate), FAST(rotary), FAST(cache), FAST(logits), FAST(linear), FAST(panel), FAST(summary), FAST(layers),
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *made = PyModule_Create(&module);
    if (made && (PyModule_AddIntConstant(made, "MAX_HEAD_DIM", MAX_HEAD_DIM) ||
                 PyModule_AddIntConstant(made, "MAX_GROUP", MAX_ROWS - 4) ||
                 PyModule_AddIntConstant(made, "LAYER_BYTES", sizeof(layer)) ||
                 PyModule_AddIntConstant(made, "STEP_BYTES", sizeof(step))))
        return NULL;
    return made;
}
