ES_UNARY_F32(es_silu_f32, v * es_sigmoid_of(v))
