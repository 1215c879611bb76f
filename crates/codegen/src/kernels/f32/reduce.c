/* Over the middle of three axes; y may be x. */
#define ES_REDUCE_F32(name, first, next, last)                                                  \
    static void name(int32_t outer, int32_t n, int32_t inner, const float *x, float *y)         \
    {                                                                                           \
        int32_t o;                                                                              \
        int32_t i;                                                                              \
        int32_t k;                                                                              \
        for (o = 0; o < outer; o++) {                                                           \
            for (i = 0; i < inner; i++) {                                                       \
                const float *at = &x[i];                                                        \
                float a = (first);                                                              \
                for (k = 0; k < n; k++) {                                                       \
                    const float v = *at;                                                        \
                    a = (next);                                                                 \
                    at = &at[inner];                                                            \
                }                                                                               \
                y[i] = (last);                                                                  \
            }                                                                                   \
            x = &x[n * inner];                                                                  \
            y = &y[inner];                                                                      \
        }                                                                                       \
    }
