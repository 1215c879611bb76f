/* Any convolution, two pixels at a time. Windows of all groups lie behind those of one. */
static void es_conv8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->kernel_h * p->kernel_w * (p->in_c / p->groups);
    const int32_t size = es_block8_size(k);
    const int32_t channels = p->out_c / p->groups;
    const int32_t group = es_block8_bytes(channels, k);
    int8_t *const windows = (int8_t *)scratch;
    int8_t *const behind = &windows[(2 * size) + (int32_t)sizeof(es_block8_state)];
    int8_t *const first = (p->groups == 1) ? windows : behind;
    int8_t *const second = (p->groups == 1) ? &windows[size] : &behind[k * p->groups];
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
        if (p->groups == 1) {
            es_block8(&p->to, channels, size, windows, w, y0, y1);
            continue;
        }
        for (g = 0; g < p->groups; g++) {
            es_requant to = p->to;
            to.bias = &to.bias[g * channels];
            to.mult = &to.mult[g * channels];
            es_copy(windows, &first[g * k], k);
            es_copy(&windows[size], &second[g * k], k);
            es_block8(&to, channels, size, windows, &w[g * group], &y0[g * channels], &y1[g * channels]);
        }
    }
}
