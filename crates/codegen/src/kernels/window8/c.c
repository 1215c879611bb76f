/* Whether a window lies wholly inside, and its rows are runs. */
static inline int32_t es_inside(const es_conv *p, int32_t top, int32_t left)
{
    return ((top >= 0) && (left >= 0) && ((left + p->kernel_w) <= p->in_w) && (p->groups == 1) &&
            (p->dilation_w == 1) && ((top + ((p->kernel_h - 1) * p->dilation_h)) < p->in_h)) ? 1 : 0;
}

/* What an output pixel sees, as [group][kernel_h][kernel_w][channel of the group]. */
ES_NOINLINE static void es_window8(const es_conv *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *to)
{
    const int32_t zero = p->in_zero;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = (ox * p->stride_w) - p->pad_left;
    const int32_t whole = ((p->groups == 1) && (p->dilation_w == 1)) ? 1 : 0;
    const int32_t channels = p->in_c / p->groups;
    const int32_t run = (whole != 0) ? p->kernel_w : 1;
    int32_t group;
    int32_t ky;
    int32_t kx;
    if (es_inside(p, top, left) != 0) {
        const int32_t bytes = p->kernel_w * p->in_c;
        const int32_t step = p->dilation_h * p->in_w * p->in_c;
        x = &x[((top * p->in_w) + left) * p->in_c];
        for (ky = p->kernel_h; ky > 0; ky--) {
            es_copy(to, x, bytes);
            to = &to[bytes];
            x = &x[step];
        }
        return;
    }
    for (group = 0; group < p->groups; group++) {
        for (ky = 0; ky < p->kernel_h; ky++) {
            const int32_t iy = top + (ky * p->dilation_h);
            for (kx = 0; kx < p->kernel_w; kx += run) {
                const int32_t ix = left + (kx * p->dilation_w);
                int32_t before = (ix < 0) ? -ix : 0;
                int32_t inside = ((ix + run) > p->in_w) ? (p->in_w - ix) : run;
                int32_t after;
                if ((iy < 0) || (iy >= p->in_h) || (before >= run) || (inside <= before)) {
                    before = run;
                    inside = run;
                }
                after = (run - inside) * channels;
                inside = (inside - before) * channels;
                before *= channels;
                if (before > 0) {
                    es_fill(to, zero, before);
                    to += before;
                }
                if (inside > 0) {
                    const int32_t pixel = (iy * p->in_w) + ((ix < 0) ? 0 : ix);
                    es_copy(to, &x[(pixel * p->in_c) + (group * channels)], inside);
                    to += inside;
                }
                if (after > 0) {
                    es_fill(to, zero, after);
                    to += after;
                }
            }
        }
    }
}
