/* Any depthwise convolution of halves; weights lie tap by tap. y does not overlap x. Sums are of floats. */
static void es_depthwise_f16(const es_convh *p, const void *from, const void *weights, void *to)
{
    const es_half *const x = (const es_half *)from;
    const es_half *const w = (const es_half *)weights;
    es_half *y = (es_half *)to;
    const int32_t channels = p->in_c;
    int32_t oy;
    int32_t ox;
    int32_t c;
    int32_t ky;
    int32_t kx;
    for (oy = 0; oy < p->out_h; oy++) {
        const int32_t top = (oy * p->stride_h) - p->pad_top;
        for (ox = 0; ox < p->out_w; ox++) {
            const int32_t left = (ox * p->stride_w) - p->pad_left;
            for (c = 0; c < channels; c++) {
                float sum = p->bias[c];
                for (ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t iy = top + (ky * p->dilation_h);
                    if ((iy < 0) || (iy >= p->in_h)) {
                        continue;
                    }
                    for (kx = 0; kx < p->kernel_w; kx++) {
                        const int32_t ix = left + (kx * p->dilation_w);
                        if ((ix >= 0) && (ix < p->in_w)) {
                            sum += (float)x[(((iy * p->in_w) + ix) * channels) + c] *
                                   (float)w[(((ky * p->kernel_w) + kx) * channels) + c];
                        }
                    }
                }
                sum = (sum < p->lo) ? p->lo : sum;
                *y = (es_half)((sum > p->hi) ? p->hi : sum);
                y++;
            }
        }
    }
}
