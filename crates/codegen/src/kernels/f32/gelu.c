ES_UNARY_F32(es_gelu_f32, 0.5f * v * (1.0f + es_erf_of(v * 0.70710678f)))
