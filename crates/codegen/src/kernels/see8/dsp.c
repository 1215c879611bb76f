/* Words of a value that stands outside, as es_spread8 writes them; returns the sum and the even ones. */
static inline int32_t es_outside8(int32_t value, int32_t count, uint32_t *to, int32_t sum)
{
    const uint32_t even = ((uint32_t)value & 0xffffu) * 0x00010001u;
    const uint32_t odd = ((uint32_t)(value - 128 - (256 * value)) & 0xffffu) * 0x00010001u;
    int32_t i;
    for (i = 0; i < count; i += 4) {
        to[i] = even;
        to[i + 1] = odd;
    }
    return sum + ((value * count) >> 1);
}

/* A window of one group as words: by runs of its rows where those are words, or by its bytes. Returns what
   es_expand8 returns. */
ES_NOINLINE static int32_t es_see8(const es_conv *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *bytes,
                                   uint32_t *words)
{
    const int32_t c = p->in_c;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = (ox * p->stride_w) - p->pad_left;
    const int32_t run = p->kernel_w * c;
    const int32_t step = p->dilation_h * p->in_w * c;
    int32_t sum = 0;
    int32_t ky;
    int32_t kx;
    if (((run & 3) == 0) && (es_inside(p, top, left) != 0)) {
        const int8_t *row = &x[((top * p->in_w) + left) * c];
        for (ky = p->kernel_h; ky > 0; ky--) {
            sum = es_spread8(row, run >> 2, words, sum);
            words = &words[run];
            row = &row[step];
        }
        return -128 * sum;
    }
    if ((c & 3) != 0) {
        es_window8(p, x, oy, ox, bytes);
        return es_expand8(bytes, p->kernel_h * run, words);
    }
    for (ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + (ky * p->dilation_h);
        for (kx = 0; kx < p->kernel_w; kx++) {
            const int32_t ix = left + (kx * p->dilation_w);
            if ((iy >= 0) && (iy < p->in_h) && (ix >= 0) && (ix < p->in_w)) {
                sum = es_spread8(&x[((iy * p->in_w) + ix) * c], c >> 2, words, sum);
            } else {
                sum = es_outside8(p->in_zero, c, words, sum);
            }
            words = &words[c];
        }
    }
    return -128 * sum;
}
