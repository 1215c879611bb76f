ES_REDUCE_F32(es_reduce_sum_f32, 0.0f, a + v, a)
