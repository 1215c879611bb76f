/* Weights lie by fours of channels: 16 bytes of each in turn. */
static void es_dense8(const es_dense *p, const int8_t *x, const int8_t *w, int8_t *y)
{
    const int32x4_t lo = vdupq_n_s32(p->to.lo);
    const int32x4_t hi = vdupq_n_s32(p->to.hi);
    int32_t row;
    int32_t c;
    for (row = 0; row < p->rows; row++) {
        const int8_t *weight = w;
        for (c = 0; c < p->out; c += 4) {
            const mve_pred16_t some = vctp32q((uint32_t)(p->out - c));
            const int8_t *at = x;
            int32x4_t sum;
            register int32_t s0 __asm__("r0") = 0;
            register int32_t s1 __asm__("r2") = 0;
            register int32_t s2 __asm__("r4") = 0;
            register int32_t s3 __asm__("r6") = 0;
            __asm__ volatile("dlstp.8 lr, %[n]\n"
                             "1:\n"
                             "vldrb.8 q0, [%[x]], #16\n"
                             "vldrb.8 q1, [%[w]], #16\n"
                             "vldrb.8 q2, [%[w]], #16\n"
                             "vmladava.s8 %[s0], q0, q1\n"
                             "vldrb.8 q1, [%[w]], #16\n"
                             "vmladava.s8 %[s1], q0, q2\n"
                             "vldrb.8 q2, [%[w]], #16\n"
                             "vmladava.s8 %[s2], q0, q1\n"
                             "vmladava.s8 %[s3], q0, q2\n"
                             "letp lr, 1b\n"
                             : [x] "+&r"(at), [w] "+&r"(weight), [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2),
                               [s3] "+&r"(s3)
                             : [n] "r"(p->in)
                             : "q0", "q1", "q2", "lr", "memory");
            sum = vldrwq_z_s32(&p->to.bias[c], some);
            sum = vaddq_s32(sum, vsetq_lane_s32(s3, vsetq_lane_s32(s2, vsetq_lane_s32(s1,
                                vdupq_n_s32(s0), 1), 2), 3));
            sum = vshlq_r_s32(sum, p->to.shift);
            sum = vrmulhq_s32(sum, vldrwq_z_s32(&p->to.mult[c], some));
            sum = vaddq_n_s32(sum, p->to.zero);
            sum = vminq_s32(vmaxq_s32(sum, lo), hi);
            vstrbq_p_s32(&y[c], sum, some);
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
