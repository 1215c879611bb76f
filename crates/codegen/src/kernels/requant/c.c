/* y = clamp(zero + round((acc << shift) * mult / 2^32), lo, hi) */
typedef struct {
    const int32_t *bias;
    const int32_t *mult;
    int32_t zero;
    int32_t lo;
    int32_t hi;
    int32_t shift;
} es_requant;

/* round(a * b / 2^32), halves up, for b that is not negative. */
static inline int32_t es_high(int32_t a, int32_t b)
{
#if defined(ES_NARROW) || defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
    /* By products of 16 bits: a core without a product of 64 bits would call a function. */
    const int32_t a_high = a >> 16;
    const uint32_t a_low = (uint32_t)a & 0xffffu;
    const uint32_t b_high = (uint32_t)b >> 16;
    const uint32_t b_low = (uint32_t)b & 0xffffu;
    const uint32_t low = (a_low * b_high) + ((a_low * b_low) >> 16);
    const int32_t middle = (a_high * (int32_t)b_low) + (int32_t)(low & 0xffffu);
    return (a_high * (int32_t)b_high) + (int32_t)(low >> 16) + (middle >> 16) + ((middle >> 15) & 1);
#else
    return (int32_t)((((int64_t)a * b) + INT64_C(0x80000000)) >> 32);
#endif
}

static inline int8_t es_requantise(const es_requant *to, int32_t acc, int32_t mult)
{
    const int32_t scaled = (int32_t)((uint32_t)acc << (uint32_t)to->shift);
    int32_t y = to->zero + es_high(scaled, mult);
    if (y < to->lo) {
        y = to->lo;
    }
    if (y > to->hi) {
        y = to->hi;
    }
    return (int8_t)y;
}

/* es_requantise keeps the bounds. */
#define ES_BOUND(to, y, count) \
    do {                       \
        (void)(to);            \
        (void)(y);             \
        (void)(count);         \
    } while (0)
