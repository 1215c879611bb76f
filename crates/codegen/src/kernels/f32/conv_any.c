/* What an output pixel sees of a group, every second number of to. */
static void es_window_f32(const es_convf *p, const float *x, int32_t pixel, int32_t group, float *to)
{
    const int32_t c = p->in_c / p->groups;
    const int32_t oy = pixel / p->out_w;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = ((pixel - (oy * p->out_w)) * p->stride_w) - p->pad_left;
    int32_t ky;
    int32_t kx;
    int32_t i;
    for (ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + (ky * p->dilation_h);
        for (kx = 0; kx < p->kernel_w; kx++) {
            const int32_t ix = left + (kx * p->dilation_w);
            if ((iy >= 0) && (iy < p->in_h) && (ix >= 0) && (ix < p->in_w)) {
                const float *from = &x[(((iy * p->in_w) + ix) * p->in_c) + (group * c)];
                for (i = c; i > 0; i--) {
                    *to = *from;
                    from++;
                    to = &to[2];
                }
            } else {
                for (i = c; i > 0; i--) {
                    *to = 0.0f;
                    to = &to[2];
                }
            }
        }
    }
}

/* Any convolution, two pixels at a time; y lies as that of es_conv8, if there is one group. */
static void es_conv_f32(const es_convf *p, const float *x, const float *w, float *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->kernel_h * p->kernel_w * (p->in_c / p->groups);
    const int32_t channels = p->out_c / p->groups;
    const int32_t step = ((channels + 3) & ~3) * k;
    float *const windows = (float *)scratch;
    int32_t i;
    int32_t g;
    for (i = 0; i < pixels; i += 2) {
        const int32_t next = ((i + 1) < pixels) ? 1 : 0;
        for (g = 0; g < p->groups; g++) {
            float *const y0 = &y[(i * p->out_c) + (g * channels)];
            es_window_f32(p, x, i, g, windows);
            es_window_f32(p, x, i + next, g, &windows[1]);
            es_block_f32(&p->bias[g * channels], p->lo, p->hi, channels, k, windows, &w[g * step], y0,
                         &y0[next * p->out_c]);
        }
    }
}
