/* A step of an LSTM (S. Hochreiter and J. Schmidhuber, 1997; with forget gates). Weights of a unit lie together: of in
   numbers and then of hidden ones, four at a time, of the gates input, output, forget and cell, and so the biases.
   h and c are the state; next has room for h. */
typedef struct {
    int32_t in;
    int32_t hidden;
    const float *bias;
} es_recurrent;

static void es_lstm_f32(const es_recurrent *p, const float *x, const float *w, float *h, float *c, float *next)
{
    int32_t i;
    for (i = 0; i < p->hidden; i++) {
        const float *const b = &p->bias[4 * i];
        float a[4];
        float s[4];
        w = es_row_f32(p->in, x, w, a);
        w = es_row_f32(p->hidden, h, w, s);
        c[i] = (es_sigmoid_of(a[2] + s[2] + b[2]) * c[i]) +
               (es_sigmoid_of(a[0] + s[0] + b[0]) * es_tanh_of(a[3] + s[3] + b[3]));
        next[i] = es_sigmoid_of(a[1] + s[1] + b[1]) * es_tanh_of(c[i]);
    }
    memcpy(h, next, (size_t)p->hidden * sizeof(float));
}
