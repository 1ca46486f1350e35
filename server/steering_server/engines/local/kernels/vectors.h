/* Vectors as wide as the processor's: GCC keeps wider ones in memory. Included once for each set of instructions, since
 * GCC breaks vectors up where a function is defined, not where it is inlined. V(x) is the name of a function of this set. */

#undef LANES
#undef VEC
#undef VEC_UNALIGNED
#undef UVEC
#undef UVEC_UNALIGNED
#undef IVEC
#undef SHUFFLE
#if AVX512
#define LANES 16
#define VEC v16
#define VEC_UNALIGNED v16_unaligned
#define UVEC u32x16
#define UVEC_UNALIGNED u32x16_unaligned
#define IVEC i32x16
#define SHUFFLE(name, x, y) name(x, y)
#define CHOOSE(x, comparison, y, yes, no)                                                                             \
    ((v16)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)(x), (__m512)(y), comparison), (__m512)(no), (__m512)(yes)))
#define WHERE_GREATER(x, y, yes, no) CHOOSE(x, _CMP_GT_OQ, y, yes, no)
#define WHERE_NAN(x, yes, no) CHOOSE(x, _CMP_UNORD_Q, x, yes, no)
#else
#define LANES 8
#define VEC v8
#define VEC_UNALIGNED v8_unaligned
#define UVEC u32x8
#define UVEC_UNALIGNED u32x8_unaligned
#define IVEC i32x8
#define SHUFFLE(name, x, y) name##8(x, y)
INLINE VEC choose(IVEC which, VEC yes, VEC no) { return (VEC)(((IVEC)yes & which) | ((IVEC)no & ~which)); }
#define WHERE_GREATER(x, y, yes, no) choose((x) > (y), yes, no)
#define WHERE_NAN(x, yes, no) choose((x) != (x), yes, no)
#endif

INLINE UVEC splat(uint32_t x) { return x + (UVEC){0}; }
INLINE VEC spread(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (VEC)splat(bits);
}

INLINE VEC widen_each(UVEC x) { return (VEC)(x << 16); }

/* Lane i of the result is the sum of the lanes of x[i]. */
INLINE v16 sum_each(v16 *x) {
    for (int i = 0; i < 8; i++) x[i] = HALF(x[i], x[i + 8]) + OTHER_HALF(x[i], x[i + 8]);
    for (int i = 0; i < 4; i++) x[i] = QUARTER(x[i], x[i + 4]) + OTHER_QUARTER(x[i], x[i + 4]);
    for (int i = 0; i < 2; i++) x[i] = PAIR(x[i], x[i + 2]) + OTHER_PAIR(x[i], x[i + 2]);
    return ONE(x[0], x[1]) + OTHER(x[0], x[1]);
}
INLINE float sum(VEC x) {
#if LANES == 16
    x = x + OTHER_HALF(x, x);
#endif
    x = x + SHUFFLE(OTHER_QUARTER, x, x);
    x = x + SHUFFLE(OTHER_PAIR, x, x);
    x = x + SHUFFLE(OTHER, x, x);
    return x[0];
}
INLINE void transpose(UVEC *x) {
#if LANES == 16
    for (int i = 0; i < 8; i++) {
        UVEC a = x[i], b = x[i + 8];
        x[i] = HALF(a, b), x[i + 8] = OTHER_HALF(a, b);
    }
#endif
    for (int i = 0; i < LANES; i++)
        if (!(i & 4)) {
            UVEC a = x[i], b = x[i + 4];
            x[i] = SHUFFLE(QUARTER, a, b), x[i + 4] = SHUFFLE(OTHER_QUARTER, a, b);
        }
    for (int i = 0; i < LANES; i++)
        if (!(i & 2)) {
            UVEC a = x[i], b = x[i + 2];
            x[i] = SHUFFLE(PAIR, a, b), x[i + 2] = SHUFFLE(OTHER_PAIR, a, b);
        }
    for (int i = 0; i < LANES; i += 2) {
        UVEC a = x[i], b = x[i + 1];
        x[i] = SHUFFLE(ONE, a, b), x[i + 1] = SHUFFLE(OTHER, a, b);
    }
}

/* The greater of two; what is no number counts as the greatest. */
INLINE VEC greater(VEC x, VEC y) {
    return WHERE_NAN(x, x, WHERE_GREATER(x, y, x, y));
}

INLINE float greatest(VEC x) {
#if LANES == 16
    x = greater(x, OTHER_HALF(x, x));
#endif
    x = greater(x, SHUFFLE(OTHER_QUARTER, x, x));
    x = greater(x, SHUFFLE(OTHER_PAIR, x, x));
    x = greater(x, SHUFFLE(OTHER, x, x));
    return x[0];
}

INLINE UVEC narrow_each(VEC x) {
    UVEC bits = (UVEC)x;
    VEC rounded = (VEC)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    return (UVEC)WHERE_NAN(x, (VEC)splat(0x7fc0), rounded);
}

/* e to the power of x, to 2 units in the last place: 2^n times a polynomial of the rest (after Cephes' expf). */
INLINE VEC exponential(VEC x) {
    const VEC big = spread(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    const VEC least = spread(-87.3f), most = spread(88.37f);
    VEC within = WHERE_GREATER(x, most, most, x);
    VEC shifted = within * spread(1.44269504f) + big;
    VEC n = shifted - big;
    VEC r = within - n * spread(0.693359375f);
    r = r - n * spread(-2.12194440e-4f);
    VEC p = spread(1.9875691500e-4f);
    p = p * r + spread(1.3981999507e-3f);
    p = p * r + spread(8.3334519073e-3f);
    p = p * r + spread(4.1665795894e-2f);
    p = p * r + spread(1.6666665459e-1f);
    p = p * r + spread(5.0000001201e-1f);
    p = p * r * r + r + spread(1.0f);
    VEC power = (VEC)(((IVEC)shifted - 0x4b400000 + 127) << 23);
    return WHERE_GREATER(least, x, spread(0), p * power);
}

INLINE VEC hyperbolic_tangent(VEC x) {
    return spread(1) - spread(2) / (exponential(x + x) + spread(1));
}

/* Minus infinity in the lanes of keys from `first` on that a query does not see: up to `from`, and after `to`. */
INLINE VEC seen(VEC scores, int64_t first, int64_t from, int64_t to) {
    const v16 numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    VEC lanes;
    memcpy(&lanes, &numbers, sizeof lanes);
    const VEC key = lanes + spread((float)first), hidden = spread(-INFINITY);
    scores = WHERE_GREATER(key, spread((float)from), scores, hidden);
    return WHERE_GREATER(key, spread((float)to), hidden, scores);
}

#undef CHOOSE
