ES_UNARY_F32(es_floor_f32, es_floor_of(v))
