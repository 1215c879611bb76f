ES_REDUCE_F32(es_reduce_mean_f32, 0.0f, a + v, a / (float)n)
