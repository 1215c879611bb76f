/* 1x1, stride 1, no padding, one group: two pixels at a time. */
static void es_conv8_1x1(const es_conv *p, const int8_t *x, const int8_t *w, int8_t *y, void *scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    const int32_t k = p->in_c;
    const int32_t size = es_block8_size(k);
    int8_t *const windows = (int8_t *)scratch;
    int32_t i;
    for (i = 0; i < pixels; i += 2) {
        const int32_t next = ((i + 1) < pixels) ? 1 : 0;
        const int8_t *const x0 = &x[i * k];
        int8_t *const y0 = &y[i * p->out_c];
        es_copy(windows, x0, k);
        es_copy(&windows[size], &x0[next * k], k);
        es_block8(&p->to, p->out_c, size, windows, w, y0, &y0[next * p->out_c]);
    }
}
