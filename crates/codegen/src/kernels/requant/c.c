/* y = clamp(zero + round((acc << shift) * mult / 2^32), lo, hi) */
typedef struct {
    const int32_t *bias;
    const int32_t *mult;
    int32_t zero;
    int32_t lo;
    int32_t hi;
    int32_t shift;
} es_requant;

static inline int8_t es_requantise(const es_requant *to, int32_t acc, int32_t mult)
{
    const int32_t scaled = (int32_t)((uint32_t)acc << (uint32_t)to->shift);
    const int64_t wide = ((int64_t)scaled * mult) + INT64_C(0x80000000);
    int32_t y = to->zero + (int32_t)(wide >> 32);
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
