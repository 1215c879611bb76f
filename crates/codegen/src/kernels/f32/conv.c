/* A convolution on f32; lo and hi bound what it writes. */
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
} es_convf;

static inline float es_bounded(float v, float lo, float hi)
{
    v = (v < lo) ? lo : v;
    return (v > hi) ? hi : v;
}
