ES_BINARY_F32(es_min_f32, ((l < r) || (l != l)) ? l : r)
