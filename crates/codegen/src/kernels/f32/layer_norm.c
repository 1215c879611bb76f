/* (x - mean) / sqrt(variance + epsilon) * gain + shift of rows of n numbers; y may be x. */
static void es_layer_norm_f32(int32_t rows, int32_t n, float epsilon, const float *gain, const float *shift,
                              const float *x, float *y)
{
    int32_t row;
    int32_t i;
    for (row = 0; row < rows; row++) {
        float mean = 0.0f;
        float square = 0.0f;
        for (i = 0; i < n; i++) {
            mean += x[i];
        }
        mean /= (float)n;
        for (i = 0; i < n; i++) {
            const float d = x[i] - mean;
            square += d * d;
        }
        square = 1.0f / es_sqrt_of((square / (float)n) + epsilon);
        for (i = 0; i < n; i++) {
            y[i] = ((x[i] - mean) * square * gain[i]) + shift[i];
        }
        x = &x[n];
        y = &y[n];
    }
}
