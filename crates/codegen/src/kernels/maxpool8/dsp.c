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
            for (i = c; i >= 4; i -= 4) {
                const int8_t *row = start;
                uint32_t most = 0x80808080u;
                for (ky = 0; ky < rows; ky++) {
                    const int8_t *at = row;
                    for (kx = 0; kx < columns; kx++) {
                        uint32_t less;
                        __asm__("ssub8 %0, %1, %2\n"
                                "sel %1, %1, %2\n"
                                : "=&r"(less), "+&r"(most)
                                : "r"(es_word(at)));
                        at = &at[c];
                    }
                    row = &row[p->in_w * c];
                }
                __builtin_memcpy(y, &most, 4u);
                start = &start[4];
                y = &y[4];
            }
            for (; i > 0; i--) {
                const int8_t *row = start;
                int32_t most = -128;
                for (ky = 0; ky < rows; ky++) {
                    const int8_t *at = row;
                    for (kx = 0; kx < columns; kx++) {
                        most = (*at > most) ? *at : most;
                        at = &at[c];
                    }
                    row = &row[p->in_w * c];
                }
                *y = (int8_t)most;
                start = &start[1];
                y = &y[1];
            }
        }
    }
}
