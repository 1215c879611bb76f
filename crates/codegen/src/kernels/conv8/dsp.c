/* Any convolution, two pixels at a time. Bytes of windows lie behind their words. */
static void es_conv8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->kernel_h * p->kernel_w * (p->in_c / p->groups);
    const int32_t channels = p->out_c / p->groups;
    const int32_t words = es_block8_words(k);
    const int32_t group = es_block8_bytes(channels, k);
    uint32_t *const windows = (uint32_t *)scratch;
    int8_t *const first = (int8_t *)&windows[(words * 4) + (int32_t)(sizeof(es_block8_state) / 4u)];
    int8_t *const second = &first[k * p->groups];
    int32_t at[4] = {0, 0, 0, 0};
    int32_t i;
    int32_t g;
    for (i = 0; i < pixels; i += 2) {
        const int32_t next = ((i + 1) < pixels) ? 1 : 0;
        int8_t *const y0 = &y[i * p->out_c];
        int8_t *const y1 = &y0[next * p->out_c];
        int32_t less[2];
        at[2] = at[0];
        at[3] = at[1] + next;
        if (at[3] == p->out_w) {
            at[3] = 0;
            at[2]++;
        }
        if (p->groups == 1) {
            less[0] = es_see8(p, x, at[0], at[1], first, windows);
            less[1] = es_see8(p, x, at[2], at[3], first, &windows[2]);
            es_block8(&p->to, channels, k, windows, less, w, y0, y1);
        } else {
            es_window8(p, x, at[0], at[1], first);
            es_window8(p, x, at[2], at[3], second);
            for (g = 0; g < p->groups; g++) {
                es_requant to = p->to;
                to.bias = &to.bias[g * channels];
                to.mult = &to.mult[g * channels];
                less[0] = es_expand8(&first[g * k], k, windows);
                less[1] = es_expand8(&second[g * k], k, &windows[2]);
                es_block8(&to, channels, k, windows, less, &w[g * group], &y0[g * channels],
                          &y1[g * channels]);
            }
        }
        at[0] = at[2];
        at[1] = at[3] + 1;
        if (at[1] == p->out_w) {
            at[1] = 0;
            at[0]++;
        }
    }
    ES_BOUND(&p->to, y, pixels * p->out_c);
}
