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

static void es_add8(const es_add *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t ma = p->mult_a;
    const int32_t mb = p->mult_b;
    const uint32_t bias = (uint32_t)p->bias;
    const int32_t shift = p->shift;
    const int32_t lo = p->lo - p->zero;
    const int32_t hi = p->hi - p->zero;
    int32_t done;
    for (done = 0; done < p->count; done += p->b_count) {
        const int8_t *bi = b;
        const int8_t *const end = &b[p->b_count];
        while (bi != end) {
            const uint32_t sum = bias + (uint32_t)(*a * ma) + (uint32_t)(*bi * mb);
            int32_t v = (int32_t)sum >> shift;
            v = (v < lo) ? lo : v;
            v = (v > hi) ? hi : v;
            *y = (int8_t)(v + p->zero);
            a++;
            bi++;
            y++;
        }
    }
}
