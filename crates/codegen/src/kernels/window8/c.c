/* Whether a window lies wholly inside, and its rows are runs. */
static inline int32_t es_inside(const es_conv *p, int32_t top, int32_t left)
{
    return ((top >= 0) && (left >= 0) && ((left + p->kernel_w) <= p->in_w) && (p->groups == 1) &&
            (p->dilation_w == 1) && ((top + ((p->kernel_h - 1) * p->dilation_h)) < p->in_h)) ? 1 : 0;
}

/* What an output pixel sees, as [group][kernel_h][kernel_w][channel of the group]: by rows where they are runs, by
   pixels else; a row that is not wholly seen is filled first. */
ES_NOINLINE static void es_window8(const es_conv *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *to)
{
    const int32_t zero = p->in_zero;
    const int32_t c = p->in_c / p->groups;
    const int32_t run = ((p->groups == 1) && (p->dilation_w == 1)) ? p->kernel_w : 1;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = (ox * p->stride_w) - p->pad_left;
    int32_t group;
    int32_t ky;
    int32_t kx;
    if (es_inside(p, top, left) != 0) {
        const int32_t bytes = run * c;
        const int32_t step = p->dilation_h * p->in_w * c;
        x = &x[((top * p->in_w) + left) * c];
        for (ky = p->kernel_h; ky > 0; ky--) {
            es_copy(to, x, bytes);
            to = &to[bytes];
            x = &x[step];
        }
        return;
    }
    for (group = 0; group < p->groups; group++) {
        for (kx = 0; kx < p->kernel_w; kx += run) {
            const int32_t ix = left + (kx * p->dilation_w);
            const int32_t first = (ix < 0) ? 0 : ix;
            const int32_t end = ((ix + run) > p->in_w) ? p->in_w : (ix + run);
            const int32_t seen = (end - first) * c;
            const int8_t *from = &x[(first * p->in_c) + (group * c)];
            int8_t *at = &to[kx * c];
            for (ky = 0; ky < p->kernel_h; ky++) {
                const int32_t iy = top + (ky * p->dilation_h);
                const int32_t there = ((iy >= 0) && (iy < p->in_h) && (seen > 0)) ? seen : 0;
                if (there != (run * c)) {
                    es_fill(at, zero, run * c);
                }
                if (there > 0) {
                    es_copy(&at[(first - ix) * c], &from[iy * p->in_w * p->in_c], there);
                }
                at = &at[p->kernel_w * c];
            }
        }
        to = &to[p->kernel_h * p->kernel_w * c];
    }
}
