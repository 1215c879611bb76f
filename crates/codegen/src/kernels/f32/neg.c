ES_UNARY_F32(es_neg_f32, -v)
