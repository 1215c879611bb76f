ES_UNARY_F32(es_reciprocal_f32, 1.0f / v)
