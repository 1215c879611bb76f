ES_BINARY_F32(es_div_f32, l / r)
