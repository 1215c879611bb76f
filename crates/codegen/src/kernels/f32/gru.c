/* A step of a GRU (K. Cho et al., 2014). Weights of a unit lie together: of in numbers and then of hidden ones, four at a
   time: update, reset, new from x, new from h; the last is 0 for x, the third 0 for h; and so the biases. If after is
   0, the reset gate is taken before the new gate reads h, by "again", the weights of hidden to hidden by fours of
   units, a number of each in turn; the fourth is then 0 for h too. h is the state; next has room for three of it. */
typedef struct {
    int32_t in;
    int32_t hidden;
    int32_t after;
    const float *bias;
    const float *again;
} es_gru;

static void es_gru_f32(const es_gru *p, const float *x, const float *w, float *h, float *next)
{
    const int32_t n = p->hidden;
    const float *u = p->again;
    float *const reset = &next[n];
    int32_t i;
    int32_t k;
    for (i = 0; i < n; i++) {
        const float *const b = &p->bias[4 * i];
        float a[4];
        float s[4];
        float z;
        float r;
        w = es_row_f32(p->in, x, w, a);
        w = es_row_f32(n, h, w, s);
        z = es_sigmoid_of(a[0] + s[0] + b[0]);
        r = es_sigmoid_of(a[1] + s[1] + b[1]);
        if (p->after != 0) {
            const float v = es_tanh_of(a[2] + b[2] + (r * (s[3] + b[3])));
            next[i] = ((1.0f - z) * v) + (z * h[i]);
        } else {
            /* The update gate waits in next; what x and the biases give, for what the reset gate leaves of h. */
            next[i] = z;
            reset[i] = r * h[i];
            reset[n + i] = a[2] + b[2] + b[3];
        }
    }
    if (p->after == 0) {
        for (i = 0; i < n; i += 4) {
            float s[4];
            u = es_row_f32(n, reset, u, s);
            for (k = 0; (k < 4) && ((i + k) < n); k++) {
                const float v = es_tanh_of(reset[n + i + k] + s[k]);
                next[i + k] = ((1.0f - next[i + k]) * v) + (next[i + k] * h[i + k]);
            }
        }
    }
    memcpy(h, next, (size_t)n * sizeof(float));
}
