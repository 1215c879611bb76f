ES_UNARY_F32(es_tanh_f32, es_tanh_of(v))
