/* Two operands by steps over five axes, in numbers, where 0 repeats; y lies without gaps and may be an operand
   that does not repeat. */
typedef struct {
    int32_t size[5];
    int32_t a[5];
    int32_t b[5];
} es_broadcast;

#define ES_BINARY_F32(name, result)                                                            \
    static void name(const es_broadcast *p, const float *a, const float *b, float *y)          \
    {                                                                                          \
        int32_t i[5];                                                                          \
        for (i[0] = 0; i[0] < p->size[0]; i[0]++) {                                            \
            for (i[1] = 0; i[1] < p->size[1]; i[1]++) {                                        \
                for (i[2] = 0; i[2] < p->size[2]; i[2]++) {                                    \
                    for (i[3] = 0; i[3] < p->size[3]; i[3]++) {                                \
                        const float *u = &a[(i[0] * p->a[0]) + (i[1] * p->a[1]) +              \
                                            (i[2] * p->a[2]) + (i[3] * p->a[3])];              \
                        const float *v = &b[(i[0] * p->b[0]) + (i[1] * p->b[1]) +              \
                                            (i[2] * p->b[2]) + (i[3] * p->b[3])];              \
                        for (i[4] = 0; i[4] < p->size[4]; i[4]++) {                            \
                            const float l = *u;                                                \
                            const float r = *v;                                                \
                            *y = (result);                                                     \
                            u = &u[p->a[4]];                                                   \
                            v = &v[p->b[4]];                                                   \
                            y++;                                                               \
                        }                                                                      \
                    }                                                                          \
                }                                                                              \
            }                                                                                  \
        }                                                                                      \
    }
