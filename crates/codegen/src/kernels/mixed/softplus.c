ES_UNARY_F32(es_softplus_f32, ((v > 0.0f) ? v : 0.0f) + es_log_of(1.0f + es_exp_of((v > 0.0f) ? -v : v)))
