/* The natural logarithm, to within 3 units in the last place. v = 2^n * m with m from sqrt(1/2) to sqrt(2), and
   log m = 2 * artanh((m - 1) / (m + 1)) by its series. */
static float es_log_of(float v)
{
    int32_t bits;
    int32_t n = 0;
    float m;
    float s;
    float q;
    if (!(v > 0.0f)) {
        const float zero = (v == 0.0f) ? v : 0.0f;
        return (v == 0.0f) ? (-1.0f / (zero * zero)) : (zero / zero);
    }
    if (v > 3.4028234e38f) {
        return v;
    }
    if (v < 1.17549435e-38f) {
        v *= 8388608.0f;
        n = -23;
    }
    memcpy(&bits, &v, sizeof(v));
    n += (bits - 0x3f3504f3) >> 23;
    bits -= ((bits - 0x3f3504f3) >> 23) * 8388608;
    memcpy(&m, &bits, sizeof(m));
    s = (m - 1.0f) / (m + 1.0f);
    q = s * s;
    q *= (2.0f / 3.0f) + (q * ((2.0f / 5.0f) + (q * ((2.0f / 7.0f) + (q * (2.0f / 9.0f))))));
    return ((float)n * 0.693359375f) + ((2.0f * s) + ((s * q) + ((float)n * -2.12194440e-4f)));
}
