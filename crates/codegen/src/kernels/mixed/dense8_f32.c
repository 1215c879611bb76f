/* rows of in times out channels of in, to floats between lo and hi; the zero point of x is in bias. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    const int32_t *bias;
    const float *scale;
    float lo;
    float hi;
} es_dense8f;

static void es_dense8_f32(const es_dense8f *p, const int8_t *x, const int8_t *w, float *y)
{
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const int8_t *wc = w;
        for (c = 0; c < p->out; c++) {
            int32_t acc = p->bias[c];
            float v;
            for (i = 0; i < p->in; i++) {
                acc += (int32_t)x[i] * wc[i];
            }
            wc = &wc[p->in];
            v = (float)acc * p->scale[c];
            v = (v < p->lo) ? p->lo : v;
            y[c] = (v > p->hi) ? p->hi : v;
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
