//! Gradients of operators, of the domain `edgesmith`, in floats.

mod elements;
mod images;
mod losses;
mod moved;
mod recurrent;
mod rows;

use super::{Binding, bind};

/// The operators of `edgesmith` that have kernels, by name.
pub(super) static GRADIENTS: &[Binding] = &[
    bind("AbsGrad", elements::plan),
    bind("AveragePoolGrad", images::average_pool),
    bind("BatchNormalizationGrad", rows::batch_norm),
    bind("ClipGrad", elements::plan),
    bind("ConvGrad", images::conv),
    bind("DequantizeLinearGrad", super::grids::gradient),
    bind("ErfGrad", elements::plan),
    bind("ExpGrad", elements::plan),
    bind("GRUGrad", recurrent::plan),
    bind("GatherGrad", moved::gather),
    bind("GeluGrad", elements::plan),
    bind("GlobalAveragePoolGrad", images::average_pool),
    bind("GlobalMaxPoolGrad", images::max_pool),
    bind("HardSigmoidGrad", elements::plan),
    bind("HardSwishGrad", elements::plan),
    bind("LSTMGrad", recurrent::plan),
    bind("LayerNormalizationGrad", rows::norm),
    bind("LeakyReluGrad", elements::plan),
    bind("LogSoftmaxGrad", rows::softmax),
    bind("MaxPoolGrad", images::max_pool),
    bind("QuantizeLinearGrad", super::grids::gradient),
    bind("RMSNormalizationGrad", rows::norm),
    bind("RNNGrad", recurrent::plan),
    bind("ReciprocalGrad", elements::plan),
    bind("ReluGrad", elements::plan),
    bind("SigmoidGrad", elements::plan),
    bind("SoftmaxCrossEntropyLossGrad", losses::gradient),
    bind("SoftmaxGrad", rows::softmax),
    bind("SqrtGrad", elements::plan),
    bind("SwishGrad", elements::plan),
    bind("TanhGrad", elements::plan),
    bind("Unbroadcast", moved::unbroadcast),
];

pub(super) use losses::cross_entropy;
