/* Any depthwise convolution, four channels at a time, whose weights lie tap by tap. The scratch is a ring of the rows
   that a window spans, with their padding, so that y may be x. */
static void es_depthwise8(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t rows = ((p->kernel_h - 1) * p->dilation_h) + 1;
    const int32_t width = ((p->out_w - 1) * p->stride_w) + ((p->kernel_w - 1) * p->dilation_w) + 1;
    const int32_t c = p->in_c;
    const int32_t first = p->pad_left;
    const int32_t last = ((first + p->in_w) < width) ? (first + p->in_w) : width;
    const int32x4_t lo = vdupq_n_s32(p->to.lo);
    const int32x4_t hi = vdupq_n_s32(p->to.hi);
    int8_t *const ring = (int8_t *)scratch;
    int32_t channel;
    int32_t i;
    for (channel = 0; channel < c; channel += 4) {
        const mve_pred16_t some = vctp32q((uint32_t)(c - channel));
        const int32x4_t bias = vldrwq_z_s32(&p->to.bias[channel], some);
        const int32x4_t mult = vldrwq_z_s32(&p->to.mult[channel], some);
        int8_t *out = &y[channel];
        int32_t next = -p->pad_top;
        int32_t slot = 0;
        int32_t oy;
        es_fill(ring, p->in_zero, 4 * rows * width);
        for (oy = 0; oy < p->out_h; oy++) {
            const int32_t end = (oy * p->stride_h) - p->pad_top + rows;
            int32_t ox;
            for (; next < end; next++) {
                int8_t *row = &ring[4 * ((slot * width) + first)];
                if ((next < 0) || (next >= p->in_h)) {
                    es_fill(row, p->in_zero, 4 * (last - first));
                } else {
                    const int8_t *from = &x[(next * p->in_w * c) + channel];
                    for (i = last - first; i > 0; i--) {
                        vstrbq_s32(row, vldrbq_z_s32(from, some));
                        row = &row[4];
                        from = &from[c];
                    }
                }
                slot++;
                if (slot == rows) {
                    slot = 0;
                }
            }
            for (ox = 0; ox < p->out_w; ox++) {
                const int8_t *weight = w;
                int32x4_t sum = bias;
                int32_t s = slot;
                int32_t ky;
                for (ky = p->kernel_h; ky > 0; ky--) {
                    const int8_t *at = &ring[4 * ((s * width) + (ox * p->stride_w))];
                    for (i = p->kernel_w; i > 0; i--) {
                        sum = vaddq_s32(sum, vmulq_s32(vldrbq_s32(at), vldrbq_s32(weight)));
                        at = &at[4 * p->dilation_w];
                        weight = &weight[4];
                    }
                    s += p->dilation_h;
                    if (s >= rows) {
                        s -= rows;
                    }
                }
                sum = vrmulhq_s32(vshlq_r_s32(sum, p->to.shift), mult);
                sum = vminq_s32(vmaxq_s32(vaddq_n_s32(sum, p->to.zero), lo), hi);
                vstrbq_p_s32(out, sum, some);
                out = &out[c];
            }
        }
        w = &w[4 * p->kernel_h * p->kernel_w];
    }
}
