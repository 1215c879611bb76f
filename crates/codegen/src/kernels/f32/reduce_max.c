ES_REDUCE_F32(es_reduce_max_f32, *at, ((v > a) || (v != v)) ? v : a, a)
