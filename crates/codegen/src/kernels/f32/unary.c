/* A function of each of count numbers; y may be x. */
#define ES_UNARY_F32(name, result)                                     \
    static void name(int32_t count, const float *x, float *y)          \
    {                                                                  \
        int32_t i;                                                     \
        for (i = 0; i < count; i++) {                                  \
            const float v = x[i];                                      \
            y[i] = (result);                                           \
        }                                                              \
    }
