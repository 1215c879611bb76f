/* The mean over n rows of channels: requantise(sum - n * zero) by the first multiplier, no bias. y may be x. */
typedef struct {
    int32_t n;
    int32_t channels;
    int32_t in_zero;
    es_requant to;
} es_mean;

static void es_mean8(const es_mean *p, const int8_t *x, int8_t *y)
{
    int32_t c;
    int32_t i;
    for (c = 0; c < p->channels; c++) {
        const int8_t *at = &x[c];
        int32_t sum = -p->n * p->in_zero;
        for (i = 0; i < p->n; i++) {
            sum += *at;
            at = &at[p->channels];
        }
        y[c] = es_requantise(&p->to, sum, p->to.mult[0]);
    }
    ES_BOUND(&p->to, y, p->channels);
}
