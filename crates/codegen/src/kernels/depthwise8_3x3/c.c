/* Depthwise 3x3 with stride 1 or 2, channel by channel. The scratch is a ring of three rows of a channel with their
   padding, so that y may be x. */
static void es_depthwise8_3x3(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t width = ((p->out_w - 1) * p->stride_w) + 3;
    const int32_t channels = p->in_c;
    const int32_t first = p->pad_left;
    const int32_t last = ((first + p->in_w) < width) ? (first + p->in_w) : width;
    int8_t *const ring = (int8_t *)scratch;
    int32_t c;
    int32_t i;
    memset(ring, (int)p->in_zero, (size_t)(3 * width));
    for (c = 0; c < channels; c++) {
        const int32_t bias = p->to.bias[c];
        const int32_t mult = p->to.mult[c];
        const int8_t *from = &x[c];
        int8_t *out = &y[c];
        int32_t next = -p->pad_top;
        int32_t slot = 0;
        int32_t oy;
        for (oy = 0; oy < p->out_h; oy++) {
            const int32_t end = (oy * p->stride_h) - p->pad_top + 3;
            const int8_t *r0;
            const int8_t *r1;
            const int8_t *r2;
            for (; next < end; next++) {
                int8_t *const row = &ring[slot * width];
                if ((next < 0) || (next >= p->in_h)) {
                    memset(row, (int)p->in_zero, (size_t)width);
                } else {
                    const int8_t *at = from;
                    for (i = first; i < last; i++) {
                        row[i] = *at;
                        at = &at[channels];
                    }
                    from = &from[p->in_w * channels];
                }
                slot = (slot == 2) ? 0 : (slot + 1);
            }
            r0 = &ring[slot * width];
            r1 = &ring[((slot == 2) ? 0 : (slot + 1)) * width];
            r2 = &ring[((slot == 0) ? 2 : (slot - 1)) * width];
            for (i = p->out_w; i > 0; i--) {
                int32_t acc = bias;
                acc += ((int32_t)r0[0] * w[0]) + ((int32_t)r0[1] * w[1]) + ((int32_t)r0[2] * w[2]);
                acc += ((int32_t)r1[0] * w[3]) + ((int32_t)r1[1] * w[4]) + ((int32_t)r1[2] * w[5]);
                acc += ((int32_t)r2[0] * w[6]) + ((int32_t)r2[1] * w[7]) + ((int32_t)r2[2] * w[8]);
                *out = es_requantise(&p->to, acc, mult);
                out = &out[channels];
                r0 = &r0[p->stride_w];
                r1 = &r1[p->stride_w];
                r2 = &r2[p->stride_w];
            }
        }
        w = &w[9];
    }
}
