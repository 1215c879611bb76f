/* e^v, to within 2 units in the last place; 0 below -86.9 and infinity above 88.7. It is 2^n * e^r with
   |r| <= ln 2 / 2, and e^r by its series. */
static float es_exp_of(float v)
{
    float n;
    float r;
    float sum;
    int32_t bits;
    if (!(v >= -86.9f)) {
        return (v != v) ? v : 0.0f;
    }
    if (v > 88.72f) {
        v = 100.0f;
        return v * 3.4e38f;
    }
    n = v * 1.44269504f;
    n = (float)(int32_t)(n + ((n < 0.0f) ? -0.5f : 0.5f));
    r = v - (n * 0.693359375f);
    r -= n * -2.12194440e-4f;
    sum = 1.0f / 5040.0f;
    sum = (sum * r) + (1.0f / 720.0f);
    sum = (sum * r) + (1.0f / 120.0f);
    sum = (sum * r) + (1.0f / 24.0f);
    sum = (sum * r) + (1.0f / 6.0f);
    sum = (sum * r) + 0.5f;
    sum = (sum * r * r) + r + 1.0f;
    bits = ((int32_t)n + 126) * 8388608;
    memcpy(&r, &bits, sizeof(r));
    return (sum * 2.0f) * r;
}
