/* y = x between lo and hi; y may be x. */
static void es_clip_f32(int32_t count, const float *x, float lo, float hi, float *y)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        const float v = (x[i] < lo) ? lo : x[i];
        y[i] = (v > hi) ? hi : v;
    }
}
