ES_BINARY_F32(es_max_f32, ((l > r) || (l != l)) ? l : r)
