ES_BINARY_F32(es_add_f32, l + r)
