/* rows of in times out channels of in, with weights of 4 bits, taken 16 times: a byte is two of them, the first in its
   high half. */
static void es_dense8_w4(const es_dense *p, const int8_t *x, const int8_t *w, int8_t *y)
{
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const int8_t *wc = w;
        for (c = 0; c < p->out; c++) {
            int32_t acc = p->to.bias[c];
            for (i = 0; i < p->in; i += 2) {
                const uint8_t both = (uint8_t)*wc;
                acc += (int32_t)(int8_t)(both & 0xf0u) * x[i];
                if ((i + 1) < p->in) {
                    acc += (int32_t)(int8_t)(uint8_t)(both << 4u) * x[i + 1];
                }
                wc++;
            }
            y[c] = es_requantise(&p->to, acc, p->to.mult[c]);
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
