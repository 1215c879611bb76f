/* Any convolution, two pixels at a time. Bytes of windows lie behind their words. */
static void es_conv8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->kernel_h * p->kernel_w * (p->in_c / p->groups);
    const int32_t channels = p->out_c / p->groups;
    const int32_t words = (k + 3) >> 2;
    const int32_t group = ((channels + 1) >> 1) * (8 + (8 * words));
    uint32_t *const windows = (uint32_t *)scratch;
    int8_t *const first = (int8_t *)&windows[(words * 4) + (int32_t)(sizeof(es_block8_state) / 4u)];
    int8_t *const second = &first[k * p->groups];
    int32_t oy = 0;
    int32_t ox = 0;
    int32_t i;
    int32_t g;
    for (i = 0; i < pixels; i += 2) {
        const int32_t next = ((i + 1) < pixels) ? 1 : 0;
        int8_t *const y0 = &y[i * p->out_c];
        int8_t *const y1 = &y0[next * p->out_c];
        es_window8(p, x, oy, ox, first);
        ox += next;
        if (ox == p->out_w) {
            ox = 0;
            oy++;
        }
        es_window8(p, x, oy, ox, second);
        ox++;
        if (ox == p->out_w) {
            ox = 0;
            oy++;
        }
        for (g = 0; g < p->groups; g++) {
            es_requant to = p->to;
            int32_t less[2];
            to.bias = &to.bias[g * channels];
            to.mult = &to.mult[g * channels];
            less[0] = es_expand8(&first[g * k], k, windows);
            less[1] = es_expand8(&second[g * k], k, &windows[2]);
            es_block8(&to, channels, k, windows, less, &w[g * group], &y0[g * channels],
                      &y1[g * channels]);
        }
    }
    ES_BOUND(&p->to, y, pixels * p->out_c);
}
