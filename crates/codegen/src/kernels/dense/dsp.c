/* rows of in times out channels of in. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    es_requant to;
} es_dense;

/* The sum of bytes 0 and 2 of each four. */
static int32_t es_even_sum8(const int8_t *x, int32_t count)
{
    int32_t sum = 0;
    int32_t i;
    for (; count >= 4; count -= 4) {
        sum = es_dot(es_even(es_word(x)), 0x00010001u, sum);
        x = &x[4];
    }
    for (i = 0; i < count; i += 2) {
        sum += x[i];
    }
    return sum;
}
