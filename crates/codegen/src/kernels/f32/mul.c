ES_BINARY_F32(es_mul_f32, l * r)
