/* y = requantise((a - zero_a) * (b - zero_b)) by the first multiplier and no bias. b starts again after
   b_count numbers. y may be a, and b where b_count is count. */
typedef struct {
    int32_t count;
    int32_t b_count;
    int32_t zero_a;
    int32_t zero_b;
    es_requant to;
} es_mul;

static void es_mul8(const es_mul *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t mult = p->to.mult[0];
    int32_t done;
    int32_t i;
    for (done = 0; done < p->count; done += p->b_count) {
        for (i = 0; i < p->b_count; i++) {
            const int32_t acc = ((int32_t)a[i] - p->zero_a) * ((int32_t)b[i] - p->zero_b);
            y[i] = es_requantise(&p->to, acc, mult);
        }
        a = &a[p->b_count];
        y = &y[p->b_count];
    }
    ES_BOUND(&p->to, &y[-done], done);
}
