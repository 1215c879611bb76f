/* IEEE halves. GCC for Arm needs -mfp16-format=ieee. */
#if defined(__ARM_FP16_FORMAT_IEEE)
typedef __fp16 es_half;
#else
__extension__ typedef _Float16 es_half;
#endif

/* A convolution of halves; lo and hi bound what it writes. */
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
    const float *bias;
    float lo;
    float hi;
} es_convh;

/* rows of in times out channels of in. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    const float *bias;
    float lo;
    float hi;
} es_denseh;

/* What an output pixel sees of a group, one number after the other. */
static void es_window_f16(const es_convh *p, const es_half *x, int32_t pixel, int32_t group, es_half *to)
{
    const int32_t c = p->in_c / p->groups;
    const int32_t oy = pixel / p->out_w;
    const int32_t top = (oy * p->stride_h) - p->pad_top;
    const int32_t left = ((pixel - (oy * p->out_w)) * p->stride_w) - p->pad_left;
    const size_t bytes = (size_t)c * sizeof(es_half);
    int32_t ky;
    int32_t kx;
    for (ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + (ky * p->dilation_h);
        for (kx = 0; kx < p->kernel_w; kx++) {
            const int32_t ix = left + (kx * p->dilation_w);
            if ((iy >= 0) && (iy < p->in_h) && (ix >= 0) && (ix < p->in_w)) {
                memcpy(to, &x[(((iy * p->in_w) + ix) * p->in_c) + (group * c)], bytes);
            } else {
                memset(to, 0, bytes);
            }
            to = &to[c];
        }
    }
}
