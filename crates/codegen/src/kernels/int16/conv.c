/* Any convolution on int16 by weights of 8 bits as [out][kernel_h][kernel_w][channel of the group], pixel by pixel; the
   scratch is a window. y lies as that of es_conv8 in steps of one pixel. */
typedef struct {
    int32_t in_h;
    int32_t in_w;
    int32_t in_c;
    int32_t out_h;
    int32_t out_w;
    int32_t out_c;
    int32_t kernel_h;
    int32_t kernel_w;
    int32_t stride_h;
    int32_t stride_w;
    int32_t pad_top;
    int32_t pad_left;
    int32_t dilation_h;
    int32_t dilation_w;
    int32_t groups;
    es_requant16 to;
} es_conv_int16;

static void es_conv16(const es_conv_int16 *p, const int16_t *x, const int8_t *w, int16_t *y, void *scratch)
{
    const int32_t c = p->in_c / p->groups;
    const int32_t k = p->kernel_h * p->kernel_w * c;
    const int32_t channels = p->out_c / p->groups;
    int32_t oy;
    int32_t ox;
    int32_t g;
    int32_t ky;
    int32_t kx;
    int32_t i;
    for (oy = 0; oy < p->out_h; oy++) {
        for (ox = 0; ox < p->out_w; ox++) {
            int16_t *to = (int16_t *)scratch;
            for (g = 0; g < p->groups; g++) {
                for (ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t iy = (oy * p->stride_h) - p->pad_top + (ky * p->dilation_h);
                    for (kx = 0; kx < p->kernel_w; kx++) {
                        const int32_t ix = (ox * p->stride_w) - p->pad_left + (kx * p->dilation_w);
                        if ((iy >= 0) && (iy < p->in_h) && (ix >= 0) && (ix < p->in_w)) {
                            const int32_t pixel = (iy * p->in_w) + ix;
                            memcpy(to, &x[(pixel * p->in_c) + (g * c)], (size_t)c * sizeof(int16_t));
                        } else {
                            memset(to, 0, (size_t)c * sizeof(int16_t));
                        }
                        to = &to[c];
                    }
                }
            }
            for (i = 0; i < p->out_c; i++) {
                const int16_t *const window = &((const int16_t *)scratch)[(i / channels) * k];
                const int64_t acc = es_sum16(window, &w[i * k], k) + p->to.bias[i];
                *y = es_requantise16(&p->to, acc, p->to.mult[i]);
                y++;
            }
        }
    }
}
