ES_UNARY_F32(es_hardswish_f32, v * ((v <= -3.0f) ? 0.0f : ((v >= 3.0f) ? 1.0f : ((v + 3.0f) / 6.0f))))
