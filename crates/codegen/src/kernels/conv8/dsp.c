/* Words of a value that stands outside, as es_expand8 writes them. */
static int32_t es_outside8(int32_t value, int32_t count, uint32_t *to)
{
    const uint32_t even = ((uint32_t)value & 0xffffu) * 0x00010001u;
    const uint32_t odd = ((uint32_t)(value - 128 - (256 * value)) & 0xffffu) * 0x00010001u;
    int32_t i;
    for (i = 0; i < count; i += 4) {
        to[i] = even;
        to[i + 1] = odd;
    }
    return -64 * value * count;
}

/* A window of one group as words: by runs of its rows where those are words, or by its bytes. Returns what
   es_expand8 returns. */
ES_NOINLINE static int32_t es_see8(const es_conv *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *bytes,
                                   uint32_t *words)
{
    const int32_t c = p->in_c;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = (ox * p->stride_w) - p->pad_left;
    const int32_t inside = es_inside(p, top, left);
    int32_t run = p->kernel_w * c;
    int32_t less = 0;
    int32_t ky;
    int32_t kx;
    if (((c & 3) != 0) && (((run & 3) != 0) || (inside == 0))) {
        es_window8(p, x, oy, ox, bytes);
        return es_expand8(bytes, p->kernel_h * run, words);
    }
    run = (inside != 0) ? run : c;
    for (ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + (ky * p->dilation_h);
        for (kx = 0; kx < (p->kernel_w * c); kx += run) {
            const int32_t ix = (inside != 0) ? left : (left + ((kx / c) * p->dilation_w));
            if ((iy >= 0) && (iy < p->in_h) && (ix >= 0) && (ix < p->in_w)) {
                less += es_expand8(&x[((iy * p->in_w) + ix) * c], run, words);
            } else {
                less += es_outside8(p->in_zero, run, words);
            }
            words = &words[run];
        }
    }
    return less;
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
