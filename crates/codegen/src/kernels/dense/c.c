/* rows of in times out channels of in. */
typedef struct {
    int32_t rows;
    int32_t in;
    int32_t out;
    es_requant to;
} es_dense;
