/* Any depthwise convolution, channel by channel, two taps at a time. The scratch is a ring of the rows that a window
   spans, with their padding, so that y may be x; behind it lie the weights of a channel by pairs, with zeros between
   the taps of a dilation. */
static void es_depthwise8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t rows = ((p->kernel_h - 1) * p->dilation_h) + 1;
    const int32_t pairs = (((p->kernel_w - 1) * p->dilation_w) + 2) >> 1;
    const int32_t width = (((p->out_w - 1) * p->stride_w) + (2 * pairs) + 1) & ~1;
    const int32_t channels = p->in_c;
    const int32_t first = p->pad_left;
    const int32_t last = ((first + p->in_w) < width) ? (first + p->in_w) : width;
    int16_t *const ring = (int16_t *)scratch;
    int16_t *const weights = &ring[rows * width];
    int32_t c;
    int32_t i;
    for (i = 0; i < (rows * width); i++) {
        ring[i] = (int16_t)p->in_zero;
    }
    for (i = 0; i < (2 * pairs * p->kernel_h); i++) {
        weights[i] = 0;
    }
    for (c = 0; c < channels; c++) {
        const int32_t mult = p->to.mult[c];
        int8_t *out = &y[c];
        int32_t next = -p->pad_top;
        int32_t slot = 0;
        int32_t oy;
        for (i = 0; i < (p->kernel_h * p->kernel_w); i++) {
            weights[((i / p->kernel_w) * 2 * pairs) + ((i % p->kernel_w) * p->dilation_w)] = *w;
            w++;
        }
        for (oy = 0; oy < p->out_h; oy++) {
            const int32_t end = (oy * p->stride_h) - p->pad_top + rows;
            int32_t ox;
            for (; next < end; next++) {
                int16_t *const row = &ring[slot * width];
                if ((next < 0) || (next >= p->in_h)) {
                    for (i = first; i < last; i++) {
                        row[i] = (int16_t)p->in_zero;
                    }
                } else {
                    const int8_t *from = &x[(next * p->in_w * channels) + c];
                    for (i = first; i < last; i++) {
                        row[i] = *from;
                        from = &from[channels];
                    }
                }
                slot++;
                if (slot == rows) {
                    slot = 0;
                }
            }
            for (ox = 0; ox < p->out_w; ox++) {
                const int16_t *pair = weights;
                int32_t acc = p->to.bias[c];
                int32_t s = slot;
                int32_t ky;
                for (ky = p->kernel_h; ky > 0; ky--) {
                    const int16_t *at = &ring[(s * width) + (ox * p->stride_w)];
                    for (i = pairs; i > 0; i--) {
                        uint32_t a;
                        uint32_t b;
                        __builtin_memcpy(&a, at, 4u);
                        __builtin_memcpy(&b, pair, 4u);
                        acc = es_dot(a, b, acc);
                        at = &at[2];
                        pair = &pair[2];
                    }
                    s += p->dilation_h;
                    if (s >= rows) {
                        s -= rows;
                    }
                }
                *out = es_requantise(&p->to, acc, mult);
                out = &out[channels];
            }
        }
    }
    ES_BOUND(&p->to, y, p->out_h * p->out_w * channels);
}
