static void es_dense8(const es_dense *p, const int8_t *x, const int8_t *w, int8_t *y)
{
    const uint32_t steps = (uint32_t)p->in / es_dense8_fold();
    const int32_t rest = p->in - (int32_t)(steps * es_dense8_fold());
    int8_t last[8];
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const int32_t less = -128 * es_even_sum8(x, p->in);
        const int8_t *weight = w;
        if (rest != 0) {
            for (i = 0; i < 8; i++) {
                last[i] = (i < rest) ? x[(p->in - rest) + i] : (int8_t)0;
            }
        }
        for (c = 0; c < p->out; c += 4) {
            const int32_t some = ((p->out - c) < 4) ? (p->out - c) : 4;
            int32_t sum[4];
            const int32_t *const correction = (const int32_t *)(const void *)weight;
            for (i = 0; i < some; i++) {
                sum[i] = less + correction[i] + p->to.bias[c + i];
            }
            for (; i < 4; i++) {
                sum[i] = 0;
            }
            weight = &weight[16];
            if (steps > 0u) {
                weight = es_dense8_steps(x, steps, weight, sum);
            }
            if (rest != 0) {
                weight = es_dense8_steps(last, 1u, weight, sum);
            }
            for (i = 0; i < some; i++) {
                y[c + i] = es_requantise(&p->to, sum[i], p->to.mult[c + i]);
            }
        }
        ES_BOUND(&p->to, y, p->out);
        x = &x[p->in];
        y = &y[p->out];
    }
}
