/* rows of in int16 times out channels of in weights of 8 bits. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    es_requant16 to;
} es_dense_int16;

static void es_dense16(const es_dense_int16 *p, const int16_t *x, const int8_t *w, int16_t *y)
{
    int32_t row;
    int32_t c;
    for (row = 0; row < p->rows; row++) {
        for (c = 0; c < p->out; c++) {
            const int64_t acc = es_sum16(x, &w[c * p->in], p->in) + p->to.bias[c];
            y[c] = es_requantise16(&p->to, acc, p->to.mult[c]);
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
