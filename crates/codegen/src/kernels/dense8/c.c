static void es_dense8(const es_dense *p, const int8_t *x, const int8_t *w, int8_t *y)
{
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const int8_t *wc = w;
        for (c = 0; c < p->out; c++) {
            int32_t acc = p->to.bias[c];
            for (i = 0; i < p->in; i++) {
                acc += (int32_t)x[i] * wc[i];
            }
            wc = &wc[p->in];
            y[c] = es_requantise(&p->to, acc, p->to.mult[c]);
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
