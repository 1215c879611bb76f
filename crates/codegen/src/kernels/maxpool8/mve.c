/* The greatest of each window; padding is less than all. y may start at x, or before it by a multiple of in_c,
   where no window of a later pixel starts before the end of what is written. */
static void es_maxpool8(const es_pool *p, const int8_t *x, int8_t *y)
{
    const int32_t c = p->in_c;
    int32_t oy;
    int32_t ox;
    int32_t i;
    int32_t ky;
    int32_t kx;
    for (oy = 0; oy < p->out_h; oy++) {
        int32_t top;
        const int32_t rows = es_clip((oy * p->stride_h) - p->pad_top, p->kernel_h, p->in_h, &top);
        for (ox = 0; ox < p->out_w; ox++) {
            int32_t left;
            const int32_t columns = es_clip((ox * p->stride_w) - p->pad_left, p->kernel_w, p->in_w, &left);
            const int8_t *start = &x[((top * p->in_w) + left) * c];
            for (i = c; i > 0; i -= 16) {
                const mve_pred16_t some = vctp8q((uint32_t)i);
                const int8_t *row = start;
                int8x16_t most = vdupq_n_s8(-128);
                for (ky = 0; ky < rows; ky++) {
                    const int8_t *at = row;
                    for (kx = 0; kx < columns; kx++) {
                        most = vmaxq_m_s8(most, most, vldrbq_z_s8(at, some), some);
                        at = &at[c];
                    }
                    row = &row[p->in_w * c];
                }
                vstrbq_p_s8(y, most, some);
                start = &start[16];
                y = &y[(i < 16) ? i : 16];
            }
        }
    }
}
