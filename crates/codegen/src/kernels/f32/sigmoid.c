ES_UNARY_F32(es_sigmoid_f32, es_sigmoid_of(v))
