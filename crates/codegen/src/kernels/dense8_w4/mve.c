/* rows of in times out channels of in, with weights of 4 bits, taken 16 times: 32 of a channel are 16 bytes, the first
   16 in their high halves; four channels lie in turn. */
static void es_dense8_w4(const es_dense *p, const int8_t *x, const int8_t *w, int8_t *y)
{
    const int32x4_t lo = vdupq_n_s32(p->to.lo);
    const int32x4_t hi = vdupq_n_s32(p->to.hi);
    const int8x16_t mask = vdupq_n_s8(-16);
    int32_t row;
    int32_t c;
    int32_t i;
    for (row = 0; row < p->rows; row++) {
        const int8_t *weight = w;
        for (c = 0; c < p->out; c += 4) {
            const mve_pred16_t some = vctp32q((uint32_t)(p->out - c));
            int32x4_t sum = vldrwq_z_s32(&p->to.bias[c], some);
            int32_t s0 = 0;
            int32_t s1 = 0;
            int32_t s2 = 0;
            int32_t s3 = 0;
            for (i = 0; i < p->in; i += 32) {
                const int32_t left = p->in - i;
                const int8x16_t x0 = vldrbq_z_s8(&x[i], vctp8q((uint32_t)left));
                const int8x16_t x1 = vldrbq_z_s8(&x[i + 16], vctp8q((uint32_t)((left > 16) ? (left - 16) : 0)));
                const int8x16_t w0 = vldrbq_s8(weight);
                const int8x16_t w1 = vldrbq_s8(&weight[16]);
                const int8x16_t w2 = vldrbq_s8(&weight[32]);
                const int8x16_t w3 = vldrbq_s8(&weight[48]);
                s0 = vmladavaq_s8(vmladavaq_s8(s0, x0, vandq_s8(w0, mask)), x1, vshlq_n_s8(w0, 4));
                s1 = vmladavaq_s8(vmladavaq_s8(s1, x0, vandq_s8(w1, mask)), x1, vshlq_n_s8(w1, 4));
                s2 = vmladavaq_s8(vmladavaq_s8(s2, x0, vandq_s8(w2, mask)), x1, vshlq_n_s8(w2, 4));
                s3 = vmladavaq_s8(vmladavaq_s8(s3, x0, vandq_s8(w3, mask)), x1, vshlq_n_s8(w3, 4));
                weight = &weight[64];
            }
            sum = vaddq_s32(sum, vsetq_lane_s32(s3, vsetq_lane_s32(s2, vsetq_lane_s32(s1,
                                vdupq_n_s32(s0), 1), 2), 3));
            sum = vrmulhq_s32(vshlq_r_s32(sum, p->to.shift), vldrwq_z_s32(&p->to.mult[c], some));
            sum = vminq_s32(vmaxq_s32(vaddq_n_s32(sum, p->to.zero), lo), hi);
            vstrbq_p_s32(&y[c], sum, some);
        }
        x = &x[p->in];
        y = &y[p->out];
    }
}
