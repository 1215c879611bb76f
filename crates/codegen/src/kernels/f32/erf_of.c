/* The error function, to within 4e-7: its series near 0, and 1 - t P(t) e^(-v^2) with t = 1 / (1 + p v) (Abramowitz
   and Stegun, 7.1.26). */
static float es_erf_of(float v)
{
    const float size = (v < 0.0f) ? -v : v;
    float t;
    float sum;
    if (size < 0.5f) {
        const float q = v * v;
        sum = q * (-1.0f / 3.0f + (q * (1.0f / 10.0f + (q * (-1.0f / 42.0f +
                  (q * (1.0f / 216.0f + (q * (-1.0f / 1320.0f)))))))));
        return 1.12837917f * (v + (v * sum));
    }
    t = 1.0f / (1.0f + (0.3275911f * size));
    sum = 1.061405429f;
    sum = (sum * t) - 1.453152027f;
    sum = (sum * t) + 1.421413741f;
    sum = (sum * t) - 0.284496736f;
    sum = (sum * t) + 0.254829592f;
    sum = 1.0f - (sum * t * es_exp_of(-size * size));
    return (v < 0.0f) ? -sum : sum;
}
