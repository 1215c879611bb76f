/* y = table[x as a byte]; y may be x. */
static void es_lookup8(int32_t count, const int8_t *x, const int8_t *table, int8_t *y)
{
    const int8_t *const end = &x[count];
    while (x != end) {
        *y = table[(uint8_t)*x];
        x++;
        y++;
    }
}
