/* Softmax of rows of n numbers; y may be x. */
static void es_softmax_f32(int32_t rows, int32_t n, const float *x, float *y)
{
    int32_t row;
    int32_t i;
    for (row = 0; row < rows; row++) {
        float most = x[0];
        float sum = 0.0f;
        for (i = 1; i < n; i++) {
            most = (x[i] > most) ? x[i] : most;
        }
        for (i = 0; i < n; i++) {
            y[i] = es_exp_of(x[i] - most);
            sum += y[i];
        }
        sum = 1.0f / sum;
        for (i = 0; i < n; i++) {
            y[i] *= sum;
        }
        x = &x[n];
        y = &y[n];
    }
}
