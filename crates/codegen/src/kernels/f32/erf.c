ES_UNARY_F32(es_erf_f32, es_erf_of(v))
