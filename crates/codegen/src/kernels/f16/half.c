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
