ES_UNARY_F32(es_sign_f32, (v > 0.0f) ? 1.0f : ((v < 0.0f) ? -1.0f : v))
