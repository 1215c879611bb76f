/* y = clamp(zero + round((acc << shift) * mult / 2^32), lo, hi) */
typedef struct {
    const int32_t *bias;
    const int32_t *mult;
    int32_t zero;
    int32_t lo;
    int32_t hi;
    int32_t shift;
} es_requant;

/* Without the bounds of the layer: those of int8 alone. */
static inline int8_t es_requantise(const es_requant *to, int32_t acc, int32_t mult)
{
    int32_t y;
    __asm__("smmlar %0, %1, %2, %3"
            : "=r"(y)
            : "r"((uint32_t)acc << (uint32_t)to->shift), "r"(mult), "r"(to->zero));
    __asm__("ssat %0, #8, %1" : "=r"(y) : "r"(y));
    return (int8_t)y;
}

#if defined(__GNUC__)
#define ES_UNUSED __attribute__((unused))
#else
#define ES_UNUSED
#endif

/* The bounds of the layer, where they are narrower than int8. Kernels with vectors do without. */
ES_UNUSED ES_NOINLINE static void es_bound(const es_requant *to, int8_t *y, int32_t count)
{
    int32_t i;
    if ((to->lo <= -128) && (to->hi >= 127)) {
        return;
    }
    for (i = 0; i < count; i++) {
        int32_t v = y[i];
        v = (v < to->lo) ? to->lo : v;
        y[i] = (int8_t)((v > to->hi) ? to->hi : v);
    }
}

#define ES_BOUND(to, y, count) es_bound(to, y, count)
