/* rows of in times out channels of in, four channels at a time, whose weights lie in turn. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    const float *bias;
    float lo;
    float hi;
} es_densef;

static void es_dense_f32(const es_densef *p, const float *x, const float *w, float *y)
{
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const float *u = w;
        for (c = 0; c < p->out; c += 4) {
            const int32_t some = ((p->out - c) < 4) ? (p->out - c) : 4;
            float sum[4];
            u = es_row_f32(p->in, x, u, sum);
            for (i = 0; i < some; i++) {
                y[c + i] = es_bounded(sum[i] + p->bias[c + i], p->lo, p->hi);
            }
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
