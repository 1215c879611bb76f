/* Softmax of rows of n numbers. table[d] is round(2^bits * exp(-d * scale)) for d below the greatest, with
   n * 2^bits < 2^31. Then inverse = floor(2^(bits + 31) / sum), p = (table[d] * inverse) >> (bits + 1) is the
   answer times 2^30, and y = requantise(p) by the first multiplier, no bias. y may be x. */
typedef struct {
    int32_t rows;
    int32_t n;
    int32_t bits;
    const uint32_t *table;
    es_requant to;
} es_softmax;

/* floor(2^31 * one / sum) for one <= sum < 2^31, bit by bit: a division of 64 bits would be a call. */
static uint32_t es_inverse(uint32_t one, uint32_t sum)
{
    uint32_t rest = one;
    uint32_t inverse = 0u;
    uint32_t i;
    for (i = 0u; i < 32u; i++) {
        inverse <<= 1u;
        if (rest >= sum) {
            rest -= sum;
            inverse |= 1u;
        }
        rest <<= 1u;
    }
    return inverse;
}

static void es_softmax8(const es_softmax *p, const int8_t *x, int8_t *y)
{
    int8_t *out = y;
    int32_t row;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        int32_t most = -128;
        uint32_t sum = 0u;
        uint32_t inverse;
        for (i = 0; i < p->n; i++) {
            most = (x[i] > most) ? x[i] : most;
        }
        for (i = 0; i < p->n; i++) {
            sum += p->table[most - x[i]];
        }
        inverse = es_inverse(UINT32_C(1) << (uint32_t)p->bits, sum);
        for (i = 0; i < p->n; i++) {
            const uint64_t product = (uint64_t)p->table[most - x[i]] * inverse;
            out[i] = es_requantise(&p->to, (int32_t)(product >> (uint32_t)(p->bits + 1)), p->to.mult[0]);
        }
        x = &x[p->n];
        out = &out[p->n];
    }
    ES_BOUND(&p->to, y, p->rows * p->n);
}
