/* y = clamp((acc * mult + 2^(shift - 1)) >> shift, lo, hi), where acc * mult stays within 63 bits; zero points are 0. */
typedef struct {
    const int32_t *bias;
    const int32_t *mult;
    int32_t lo;
    int32_t hi;
    int32_t shift;
} es_requant16;

static inline int16_t es_requantise16(const es_requant16 *to, int64_t acc, int32_t mult)
{
    int64_t y = ((acc * mult) + (INT64_C(1) << (uint32_t)(to->shift - 1))) >> (uint32_t)to->shift;
    y = (y < to->lo) ? to->lo : y;
    return (int16_t)((y > to->hi) ? to->hi : y);
}

/* Sums of 32 bits over 512 products at a time. */
static int64_t es_sum16(const int16_t *x, const int8_t *w, int32_t count)
{
    int64_t sum = 0;
    while (count > 0) {
        const int32_t some = (count < 512) ? count : 512;
        int32_t part = 0;
        int32_t i;
        for (i = some; i > 0; i--) {
            part += (int32_t)*x * *w;
            x++;
            w++;
        }
        sum += part;
        count -= some;
    }
    return sum;
}
