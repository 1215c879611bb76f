ES_UNARY_F32(es_abs_f32, (v < 0.0f) ? -v : v)
