/* 1x1, stride 1, no padding, one group: two pixels at a time. */
static void es_conv_f32_1x1(const es_convf *p, const float *x, const float *w, float *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->in_c;
    float *const windows = (float *)scratch;
    int32_t i;
    int32_t c;
    for (i = 0; i < pixels; i += 2) {
        const int32_t next = ((i + 1) < pixels) ? 1 : 0;
        const float *const x0 = &x[i * k];
        float *const y0 = &y[i * p->out_c];
        for (c = 0; c < k; c++) {
            windows[2 * c] = x0[c];
            windows[(2 * c) + 1] = x0[(next * k) + c];
        }
        es_block_f32(p->bias, p->lo, p->hi, p->out_c, k, windows, w, y0, &y0[next * p->out_c]);
    }
}
