/* What an output pixel sees of a group, one number after the other. */
static void es_window_f16(const es_convh *p, const es_half *x, int32_t pixel, int32_t group, es_half *to)
{
    const int32_t c = p->in_c / p->groups;
    const int32_t oy = pixel / p->out_w;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = ((pixel - (oy * p->out_w)) * p->stride_w) - p->pad_left;
    const size_t bytes = (size_t)c * sizeof(es_half);
    int32_t ky;
    int32_t kx;
    for (ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + (ky * p->dilation_h);
        for (kx = 0; kx < p->kernel_w; kx++) {
            const int32_t ix = left + (kx * p->dilation_w);
            if ((iy >= 0) && (iy < p->in_h) && (ix >= 0) && (ix < p->in_w)) {
                memcpy(to, &x[(((iy * p->in_w) + ix) * p->in_c) + (group * c)], bytes);
            } else {
                memset(to, 0, bytes);
            }
            to = &to[c];
        }
    }
}
