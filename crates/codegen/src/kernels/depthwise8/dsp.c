/* Any depthwise convolution, channel by channel. The scratch is a ring of the rows that a window spans,
   with their padding, so that y may be x. */
static void es_depthwise8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t rows = ((p->kernel_h - 1) * p->dilation_h) + 1;
    const int32_t width = ((p->out_w - 1) * p->stride_w) + ((p->kernel_w - 1) * p->dilation_w) + 1;
    const int32_t channels = p->in_c;
    const int32_t first = p->pad_left;
    const int32_t last = ((first + p->in_w) < width) ? (first + p->in_w) : width;
    int16_t *const ring = (int16_t *)scratch;
    int32_t c;
    int32_t i;
    for (i = 0; i < (rows * width); i++) {
        ring[i] = (int16_t)p->in_zero;
    }
    for (c = 0; c < channels; c++) {
        const int32_t mult = p->to.mult[c];
        int8_t *out = &y[c];
        int32_t next = -p->pad_top;
        int32_t slot = 0;
        int32_t oy;
        for (oy = 0; oy < p->out_h; oy++) {
            const int32_t top = (oy * p->stride_h) - p->pad_top;
            const int16_t *at = ring;
            int32_t ox;
            for (; next < (top + rows); next++) {
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
                int32_t acc = p->to.bias[c];
                const int8_t *wk = w;
                int32_t ky;
                int32_t s = slot;
                for (ky = 0; ky < p->kernel_h; ky++) {
                    const int16_t *row = &at[s * width];
                    int32_t kx;
                    for (kx = 0; kx < p->kernel_w; kx++) {
                        acc += (int32_t)*row * *wk;
                        row = &row[p->dilation_w];
                        wk++;
                    }
                    s += p->dilation_h;
                    if (s >= rows) {
                        s -= rows;
                    }
                }
                at = &at[p->stride_w];
                *out = es_requantise(&p->to, acc, mult);
                out = &out[channels];
            }
        }
        w = &w[p->kernel_h * p->kernel_w];
    }
    ES_BOUND(&p->to, y, p->out_h * p->out_w * channels);
}
