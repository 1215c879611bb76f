/* y = clamp(zero + (((a - zero_a) * mult_a + (b - zero_b) * mult_b + 2^(shift - 1)) >> shift), lo, hi), with
   -zero_a * mult_a - zero_b * mult_b + 2^(shift - 1) in bias. b starts again after b_count numbers. y may be
   a, and b where b_count is count. */
typedef struct {
    int32_t count;
    int32_t b_count;
    int32_t mult_a;
    int32_t mult_b;
    int32_t bias;
    int32_t shift;
    int32_t zero;
    int32_t lo;
    int32_t hi;
} es_add;

static void es_add8(const es_add *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t done;
    for (done = 0; done < p->count; done += p->b_count) {
        const int8_t *ai = &a[done];
        const int8_t *bi = b;
        int8_t *yi = &y[done];
        int32_t ma;
        int32_t mb;
        int32_t down;
        int32_t zero;
        __asm__ volatile("ldrd %[ma], %[mb], [%[p], #28]\n"
                         "ldrd %[down], %[zero], [%[p], #16]\n"
                         "vdup.32 q3, %[ma]\n"
                         "vdup.32 q4, %[mb]\n"
                         "vdup.32 q5, %[down]\n"
                         "rsb %[down], %[zero], #0\n"
                         "ldr %[ma], [%[p], #4]\n"
                         "ldr %[zero], [%[p], #24]\n"
                         "dlstp.32 lr, %[ma]\n"
                         "ldrd %[ma], %[mb], [%[p], #8]\n"
                         "1:\n"
                         "vldrb.s32 q1, [%[a]], #4\n"
                         "vldrb.s32 q2, [%[b]], #4\n"
                         "vmov q0, q5\n"
                         "vmla.s32 q0, q1, %[ma]\n"
                         "vmla.s32 q0, q2, %[mb]\n"
                         "vshl.s32 q0, %[down]\n"
                         "vadd.i32 q0, q0, %[zero]\n"
                         "vmax.s32 q0, q0, q3\n"
                         "vmin.s32 q0, q0, q4\n"
                         "vstrb.32 q0, [%[y]], #4\n"
                         "letp lr, 1b\n"
                         : [a] "+&l"(ai), [b] "+&l"(bi), [y] "+&l"(yi), [ma] "=&r"(ma), [mb] "=&r"(mb),
                           [down] "=&r"(down), [zero] "=&r"(zero)
                         : [p] "r"(p)
                         : "q0", "q1", "q2", "q3", "q4", "q5", "lr", "cc", "memory");
    }
}
