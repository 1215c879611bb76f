ES_BINARY_F32(es_sub_f32, l - r)
