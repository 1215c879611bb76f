ES_UNARY_F32(es_log_f32, es_log_of(v))
