/* y = clamp(zero + (((a - zero_a) * mult_a + (b - zero_b) * mult_b + 2^(shift - 1)) >> shift), lo, hi), with
   -zero_a * mult_a - zero_b * mult_b + 2^(shift - 1) in bias. b starts again after b_count numbers. y may be
   a, and b where b_count is count. */
typedef struct {
    int32_t count;
    int32_t b_count;
    int32_t mult_a;
    int32_t mult_b;
    int32_t bias;
    int32_t shift;
    int32_t zero;
    int32_t lo;
    int32_t hi;
} es_add;

/* n sums, one at least. */
static inline void es_sums8(const es_add *p, const int8_t *a, const int8_t *b, int8_t *y, int32_t n)
{
    const int8_t *const end = &a[n];
    const int32_t ma = p->mult_a;
    const int32_t mb = p->mult_b;
    const uint32_t bias = (uint32_t)p->bias;
    const int32_t shift = p->shift;
    const int32_t zero = p->zero;
    do {
        const uint32_t sum = bias + ((uint32_t)*a * (uint32_t)ma) + ((uint32_t)*b * (uint32_t)mb);
        int32_t v = ((int32_t)sum >> shift) + zero;
        __asm__("ssat %0, #8, %0" : "+r"(v));
        *y = (int8_t)v;
        a++;
        b++;
        y++;
    } while (a != end);
}

static void es_add8(const es_add *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t done;
    for (done = 0; done < p->count; done += p->b_count) {
        es_sums8(p, &a[done], b, &y[done], p->b_count);
    }
    if ((p->lo > -128) || (p->hi < 127)) {
        for (done = 0; done < p->count; done++) {
            const int32_t v = (y[done] < p->lo) ? p->lo : y[done];
            y[done] = (int8_t)((v > p->hi) ? p->hi : v);
        }
    }
}
