ES_UNARY_F32(es_softsign_f32, v / (1.0f + ((v < 0.0f) ? -v : v)))
