/* y = table[x as a byte]; y may be x. */
static void es_lookup8(int32_t count, const int8_t *x, const int8_t *table, int8_t *y)
{
    __asm__ volatile("wlstp.8 lr, %[n], 2f\n"
                     "1:\n"
                     "vldrb.u8 q0, [%[x]], #16\n"
                     "vldrb.u8 q1, [%[table], q0]\n"
                     "vstrb.8 q1, [%[y]], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     : [x] "+&r"(x), [y] "+&r"(y)
                     : [n] "r"(count), [table] "r"(table)
                     : "q0", "q1", "lr", "memory");
}
