/* Any depthwise convolution; weights lie tap by tap. y does not overlap x. */
static void es_depthwise_f32(const es_convf *p, const float *x, const float *w, float *y)
{
    const int32_t channels = p->in_c;
    int32_t oy;
    int32_t ox;
    int32_t c;
    int32_t ky;
    int32_t kx;
    for (oy = 0; oy < p->out_h; oy++) {
        const int32_t top = (oy * p->stride_h) - p->pad_top;
        for (ox = 0; ox < p->out_w; ox++) {
            const int32_t left = (ox * p->stride_w) - p->pad_left;
            for (c = 0; c < channels; c += 4) {
                const int32_t back = ((channels - c) < 4) ? (4 - (channels - c)) : 0;
                const int32_t at = (channels < 4) ? 0 : (c - back);
                const int32_t i1 = (channels > 1) ? 1 : 0;
                const int32_t i2 = (channels > 2) ? 2 : 0;
                const int32_t i3 = (channels > 3) ? 3 : 0;
                float s0 = p->bias[at];
                float s1 = p->bias[at + i1];
                float s2 = p->bias[at + i2];
                float s3 = p->bias[at + i3];
                for (ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t iy = top + (ky * p->dilation_h);
                    if ((iy < 0) || (iy >= p->in_h)) {
                        continue;
                    }
                    for (kx = 0; kx < p->kernel_w; kx++) {
                        const int32_t ix = left + (kx * p->dilation_w);
                        if ((ix >= 0) && (ix < p->in_w)) {
                            const float *const v = &x[(((iy * p->in_w) + ix) * channels) + at];
                            const float *const u = &w[(((ky * p->kernel_w) + kx) * channels) + at];
                            s0 += v[0] * u[0];
                            s1 += v[i1] * u[i1];
                            s2 += v[i2] * u[i2];
                            s3 += v[i3] * u[i3];
                        }
                    }
                }
                y[at + i3] = es_bounded(s3, p->lo, p->hi);
                y[at + i2] = es_bounded(s2, p->lo, p->hi);
                y[at + i1] = es_bounded(s1, p->lo, p->hi);
                y[at] = es_bounded(s0, p->lo, p->hi);
            }
            y = &y[channels];
        }
    }
}
