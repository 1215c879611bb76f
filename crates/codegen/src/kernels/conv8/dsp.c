/* Bytes of a window at "bytes", or words of one at "words", where rows of it that lie inside can be read as words;
   then 1 is returned, and what es_expand8 returns is in less. */
static int32_t es_see8(const es_conv *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *bytes,
                       uint32_t *words, int32_t *less)
{
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = (ox * p->stride_w) - p->pad_left;
    const int32_t run = p->kernel_w * p->in_c;
    int32_t ky;
    if (((run & 3) != 0) || (es_inside(p, top, left) == 0)) {
        es_window8(p, x, oy, ox, bytes);
        return 0;
    }
    *less = 0;
    x = &x[((top * p->in_w) + left) * p->in_c];
    for (ky = p->kernel_h; ky > 0; ky--) {
        *less += es_expand8(x, run, words);
        words = &words[run];
        x = &x[p->dilation_h * p->in_w * p->in_c];
    }
    return 1;
}

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
        int32_t less[2];
        const int32_t seen0 = es_see8(p, x, oy, ox, first, windows, &less[0]);
        int32_t seen1;
        ox += next;
        if (ox == p->out_w) {
            ox = 0;
            oy++;
        }
        seen1 = es_see8(p, x, oy, ox, second, &windows[2], &less[1]);
        ox++;
        if (ox == p->out_w) {
            ox = 0;
            oy++;
        }
        for (g = 0; g < p->groups; g++) {
            es_requant to = p->to;
            to.bias = &to.bias[g * channels];
            to.mult = &to.mult[g * channels];
            if (seen0 == 0) {
                less[0] = es_expand8(&first[g * k], k, windows);
            }
            if (seen1 == 0) {
                less[1] = es_expand8(&second[g * k], k, &windows[2]);
            }
            es_block8(&to, channels, k, windows, less, &w[g * group], &y0[g * channels],
                      &y1[g * channels]);
        }
    }
    ES_BOUND(&p->to, y, pixels * p->out_c);
}
