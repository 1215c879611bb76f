ES_UNARY_F32(es_sqrt_f32, es_sqrt_of(v))
