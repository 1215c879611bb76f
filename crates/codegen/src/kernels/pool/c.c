/* Windows over rows and columns of in_c channels. */
typedef struct {
    int32_t in_h;
    int32_t in_w;
    int32_t in_c;
    int32_t out_h;
    int32_t out_w;
    int32_t kernel_h;
    int32_t kernel_w;
    int32_t stride_h;
    int32_t stride_w;
    int32_t pad_top;
    int32_t pad_left;
} es_pool;

/* The part of a window that lies inside: the first of its rows or columns in *from; returns how many. */
static inline int32_t es_clip(int32_t start, int32_t kernel, int32_t size, int32_t *from)
{
    const int32_t first = (start < 0) ? 0 : start;
    const int32_t end = ((start + kernel) > size) ? size : (start + kernel);
    *from = first;
    return (end > first) ? (end - first) : 0;
}
