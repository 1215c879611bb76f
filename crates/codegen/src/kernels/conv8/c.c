/* Any convolution, two pixels at a time. */
static void es_conv8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->kernel_h * p->kernel_w * (p->in_c / p->groups);
    const int32_t channels = p->out_c / p->groups;
    int8_t *const window = (int8_t *)scratch;
    int32_t oy = 0;
    int32_t ox = 0;
    int32_t i;
    int32_t g;
    for (i = 0; i < pixels; i += 2) {
        int8_t *const y0 = &y[i * p->out_c];
        int8_t *const y1 = ((i + 1) < pixels) ? &y0[p->out_c] : y0;
        int8_t *const second = &window[k * p->groups];
        es_window8(p, x, oy, ox, window);
        if ((i + 1) < pixels) {
            ox++;
            if (ox == p->out_w) {
                ox = 0;
                oy++;
            }
        }
        es_window8(p, x, oy, ox, second);
        ox++;
        if (ox == p->out_w) {
            ox = 0;
            oy++;
        }
        if (p->groups == 1) {
            es_block8(&p->to, channels, k, window, w, y0, y1);
            continue;
        }
        for (g = 0; g < p->groups; g++) {
            es_requant to = p->to;
            int8_t *const both = &second[k * p->groups];
            to.bias = &to.bias[g * channels];
            to.mult = &to.mult[g * channels];
            es_copy(both, &window[g * k], k);
            es_copy(&both[k], &second[g * k], k);
            es_block8(&to, channels, k, both, &w[g * es_block8_bytes(channels, k)], &y0[g * channels],
                      &y1[g * channels]);
        }
    }
}
