ES_UNARY_F32(es_exp_f32, es_exp_of(v))
