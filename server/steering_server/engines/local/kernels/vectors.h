/* Vectors of 16 numbers. Included once for each set of instructions, since GCC breaks vectors up where a function is
 * defined, not where it is inlined. V(x) is the name of a function of this set. */

#if AVX512
#define CHOOSE(x, comparison, y, yes, no)                                                                             \
    ((v16)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)(x), (__m512)(y), comparison), (__m512)(no), (__m512)(yes)))
#define WHERE_GREATER(x, y, yes, no) CHOOSE(x, _CMP_GT_OQ, y, yes, no)
#define WHERE_NAN(x, yes, no) CHOOSE(x, _CMP_UNORD_Q, x, yes, no)
#else
INLINE v16 choose(i32x16 which, v16 yes, v16 no) { return (v16)(((i32x16)yes & which) | ((i32x16)no & ~which)); }
#define WHERE_GREATER(x, y, yes, no) choose((x) > (y), yes, no)
#define WHERE_NAN(x, yes, no) choose((x) != (x), yes, no)
#endif

INLINE u32x16 splat(uint32_t x) { return x + (u32x16){0}; }
INLINE v16 spread(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (v16)splat(bits);
}

INLINE v16 widen16(u32x16 x) { return (v16)(x << 16); }
/* Lane i of the result is the sum of the lanes of x[i]. */
INLINE v16 sum_each(v16 *x) {
    for (int i = 0; i < 8; i++) x[i] = HALF(x[i], x[i + 8]) + OTHER_HALF(x[i], x[i + 8]);
    for (int i = 0; i < 4; i++) x[i] = QUARTER(x[i], x[i + 4]) + OTHER_QUARTER(x[i], x[i + 4]);
    for (int i = 0; i < 2; i++) x[i] = PAIR(x[i], x[i + 2]) + OTHER_PAIR(x[i], x[i + 2]);
    return ONE(x[0], x[1]) + OTHER(x[0], x[1]);
}
INLINE float sum(v16 x) {
    v16 y = x + OTHER_HALF(x, x);
    y = y + OTHER_QUARTER(y, y);
    y = y + OTHER_PAIR(y, y);
    y = y + OTHER(y, y);
    return y[0];
}
INLINE void transpose(u32x16 *x) {
    for (int i = 0; i < 8; i++) {
        u32x16 a = x[i], b = x[i + 8];
        x[i] = HALF(a, b), x[i + 8] = OTHER_HALF(a, b);
    }
    for (int i = 0; i < 16; i++)
        if (!(i & 4)) {
            u32x16 a = x[i], b = x[i + 4];
            x[i] = QUARTER(a, b), x[i + 4] = OTHER_QUARTER(a, b);
        }
    for (int i = 0; i < 16; i++)
        if (!(i & 2)) {
            u32x16 a = x[i], b = x[i + 2];
            x[i] = PAIR(a, b), x[i + 2] = OTHER_PAIR(a, b);
        }
    for (int i = 0; i < 16; i += 2) {
        u32x16 a = x[i], b = x[i + 1];
        x[i] = ONE(a, b), x[i + 1] = OTHER(a, b);
    }
}

/* The greater of two; what is no number counts as the greatest. */
INLINE v16 greater(v16 x, v16 y) {
    return WHERE_NAN(x, x, WHERE_GREATER(x, y, x, y));
}

INLINE float greatest(v16 x) {
    x = greater(x, OTHER_HALF(x, x));
    x = greater(x, OTHER_QUARTER(x, x));
    x = greater(x, OTHER_PAIR(x, x));
    x = greater(x, OTHER(x, x));
    return x[0];
}

INLINE u32x16 narrow16(v16 x) {
    u32x16 bits = (u32x16)x;
    v16 rounded = (v16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    return (u32x16)WHERE_NAN(x, (v16)splat(0x7fc0), rounded);
}

/* e to the power of x, to 2 units in the last place: 2^n times a polynomial of the rest (after Cephes' expf). */
INLINE v16 exponential(v16 x) {
    const v16 big = spread(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    const v16 least = spread(-87.3f), most = spread(88.37f);
    v16 within = WHERE_GREATER(x, most, most, x);
    v16 shifted = within * spread(1.44269504f) + big;
    v16 n = shifted - big;
    v16 r = within - n * spread(0.693359375f);
    r = r - n * spread(-2.12194440e-4f);
    v16 p = spread(1.9875691500e-4f);
    p = p * r + spread(1.3981999507e-3f);
    p = p * r + spread(8.3334519073e-3f);
    p = p * r + spread(4.1665795894e-2f);
    p = p * r + spread(1.6666665459e-1f);
    p = p * r + spread(5.0000001201e-1f);
    p = p * r * r + r + spread(1.0f);
    v16 power = (v16)(((i32x16)shifted - 0x4b400000 + 127) << 23);
    return WHERE_GREATER(least, x, spread(0), p * power);
}

INLINE v16 hyperbolic_tangent(v16 x) {
    return spread(1) - spread(2) / (exponential(x + x) + spread(1));
}

/* Minus infinity in the lanes of keys from `first` on that a query does not see: up to `from`, and after `to`. */
INLINE v16 seen(v16 scores, int64_t first, int64_t from, int64_t to) {
    const v16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const v16 key = lanes + spread((float)first), hidden = spread(-INFINITY);
    scores = WHERE_GREATER(key, spread((float)from), scores, hidden);
    return WHERE_GREATER(key, spread((float)to), hidden, scores);
}

#undef CHOOSE
