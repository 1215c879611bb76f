/* The mean of what of each window lies inside, or by the size of the kernel if counted is 0. y lies as that of
   es_maxpool8. */
static void es_avgpool_f32(const es_pool *p, int32_t counted, const float *x, float *y)
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
            const float *const start = &x[((top * p->in_w) + left) * c];
            const int32_t n = (counted != 0) ? (rows * columns) : (p->kernel_h * p->kernel_w);
            const float part = (n > 0) ? (1.0f / (float)n) : 0.0f;
            for (i = 0; i < c; i++) {
                float sum = 0.0f;
                for (ky = 0; ky < rows; ky++) {
                    const float *at = &start[(ky * p->in_w * c) + i];
                    for (kx = 0; kx < columns; kx++) {
                        sum += *at;
                        at = &at[c];
                    }
                }
                *y = sum * part;
                y++;
            }
        }
    }
}
