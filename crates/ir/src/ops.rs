//! The operator list: one row an operator, by domain and name.
//!
//! To add one: write `ops/<op>.rs` from its nearest neighbour, add the `mod` line and the row.

use std::collections::HashMap;
use std::sync::LazyLock;

pub mod activation;
pub mod affine_grid;
pub mod arith;
pub mod attention;
pub mod axes;
pub mod binary;
pub mod bit_cast;
pub mod cast;
pub mod causal_conv;
pub mod center_crop_pad;
pub mod concat;
pub mod constant;
pub mod control;
pub mod conv;
pub mod conv_transpose;
pub mod cumulate;
pub mod definition;
pub mod deform_conv;
pub mod depth_to_space;
pub mod det;
pub mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod expand;
pub mod flex_attention;
pub mod fourier;
pub mod gather;
pub mod gradient;
pub mod grid_sample;
pub mod heads;
pub mod identity;
pub mod layout;
pub mod linear_attention;
pub mod loss;
pub mod matmul;
pub mod mel;
pub mod microsoft;
pub mod ml;
pub mod non_max_suppression;
pub mod nonzero;
pub mod norm;
pub mod numbers;
pub mod one_hot;
pub mod optimizers;
pub mod optional;
pub mod pad;
pub mod pool;
pub mod quantize;
pub mod quantized;
pub mod random;
pub mod range;
pub mod recurrent;
pub mod reduce;
pub mod reshape;
pub mod resize;
pub mod reverse_sequence;
pub mod roi;
pub mod rotary_embedding;
pub mod rows;
pub mod scan;
pub mod scatter;
pub mod sequence;
pub mod shape;
pub mod slice;
pub mod softmax;
pub mod split;
pub mod squeeze;
pub mod strings;
pub mod taps;
pub mod tensor_scatter;
pub mod tfidf;
pub mod topk;
pub mod transpose;
pub mod trilu;
pub mod unary;
pub mod unfold;
pub mod unique;
pub mod where_;
pub mod window;

pub use definition::{Arity, AttrDef, AttrKind, EvalFn, InferFn, ItemFn, MANY, OpDef, attr};

/// Every operator, by domain, then by name in ASCII order.
pub static OPS: &[&OpDef] = &[
    &unary::ABS,
    &unary::ACOS,
    &unary::ACOSH,
    &binary::ADD,
    &affine_grid::AFFINE_GRID,
    &binary::AND,
    &topk::ARG_MAX,
    &topk::ARG_MIN,
    &unary::ASIN,
    &unary::ASINH,
    &unary::ATAN,
    &unary::ATANH,
    &attention::ATTENTION,
    &pool::AVERAGE_POOL,
    &norm::BATCH_NORMALIZATION,
    &random::BERNOULLI,
    &bit_cast::BIT_CAST,
    &binary::BIT_SHIFT,
    &binary::BITWISE_AND,
    &unary::BITWISENOT,
    &binary::BITWISE_OR,
    &binary::BITWISE_XOR,
    &window::BLACKMAN_WINDOW,
    &cast::CAST,
    &cast::CAST_LIKE,
    &causal_conv::CAUSAL_CONV_WITH_STATE,
    &unary::CEIL,
    &activation::CELU,
    &center_crop_pad::CENTER_CROP_PAD,
    &activation::CLIP,
    &unfold::COL2IM,
    &nonzero::COMPRESS,
    &concat::CONCAT,
    &sequence::CONCAT_FROM_SEQUENCE,
    &constant::CONSTANT,
    &constant::CONSTANT_OF_SHAPE,
    &conv::CONV,
    &quantized::CONV_INTEGER,
    &conv_transpose::CONV_TRANSPOSE,
    &unary::COS,
    &unary::COSH,
    &cumulate::CUM_PROD,
    &cumulate::CUM_SUM,
    &fourier::DFT,
    &deform_conv::DEFORM_CONV,
    &depth_to_space::DEPTH_TO_SPACE,
    &quantize::DEQUANTIZE_LINEAR,
    &det::DET,
    &binary::DIV,
    &dropout::DROPOUT,
    &quantize::DYNAMIC_QUANTIZE_LINEAR,
    &einsum::EINSUM,
    &activation::ELU,
    &binary::EQUAL,
    &unary::ERF,
    &unary::EXP,
    &expand::EXPAND,
    &trilu::EYE_LIKE,
    &reshape::FLATTEN,
    &unary::FLOOR,
    &recurrent::GRU,
    &gather::GATHER,
    &gather::GATHER_ELEMENTS,
    &gather::GATHER_ND,
    &activation::GELU,
    &matmul::GEMM,
    &pool::GLOBAL_AVERAGE_POOL,
    &pool::GLOBAL_LP_POOL,
    &pool::GLOBAL_MAX_POOL,
    &binary::GREATER,
    &binary::GREATER_OR_EQUAL,
    &grid_sample::GRID_SAMPLE,
    &norm::GROUP_NORMALIZATION,
    &window::HAMMING_WINDOW,
    &window::HANN_WINDOW,
    &activation::HARD_SIGMOID,
    &unary::HARDSWISH,
    &softmax::HARDMAX,
    &identity::IDENTITY,
    &control::IF,
    &norm::INSTANCE_NORMALIZATION,
    &unary::ISINF,
    &unary::ISNAN,
    &norm::LRN,
    &recurrent::LSTM,
    &norm::LAYER_NORMALIZATION,
    &activation::LEAKY_RELU,
    &binary::LESS,
    &binary::LESS_OR_EQUAL,
    &linear_attention::LINEAR_ATTENTION,
    &unary::LOG,
    &softmax::LOG_SOFTMAX,
    &control::LOOP,
    &norm::LP_NORMALIZATION,
    &pool::LP_POOL,
    &matmul::MAT_MUL,
    &quantized::MAT_MUL_INTEGER,
    &binary::MAX,
    &pool::MAX_POOL,
    &roi::MAX_ROI_POOL,
    &unfold::MAX_UNPOOL,
    &binary::MEAN,
    &norm::MEAN_VARIANCE_NORMALIZATION,
    &mel::MEL_WEIGHT_MATRIX,
    &binary::MIN,
    &unary::MISH,
    &binary::MOD,
    &binary::MUL,
    &random::MULTINOMIAL,
    &unary::NEG,
    &loss::NEGATIVE_LOG_LIKELIHOOD_LOSS,
    &non_max_suppression::NON_MAX_SUPPRESSION,
    &nonzero::NON_ZERO,
    &unary::NOT,
    &one_hot::ONE_HOT,
    &optional::OPTIONAL,
    &optional::OPTIONAL_GET_ELEMENT,
    &optional::OPTIONAL_HAS_ELEMENT,
    &binary::OR,
    &binary::PRELU,
    &pad::PAD,
    &binary::POW,
    &quantized::Q_LINEAR_CONV,
    &quantized::Q_LINEAR_MAT_MUL,
    &quantize::QUANTIZE_LINEAR,
    &norm::RMS_NORMALIZATION,
    &recurrent::RNN,
    &random::RANDOM_NORMAL,
    &random::RANDOM_NORMAL_LIKE,
    &random::RANDOM_UNIFORM,
    &random::RANDOM_UNIFORM_LIKE,
    &range::RANGE,
    &unary::RECIPROCAL,
    &reduce::REDUCE_L1,
    &reduce::REDUCE_L2,
    &reduce::REDUCE_LOG_SUM,
    &reduce::REDUCE_LOG_SUM_EXP,
    &reduce::REDUCE_MAX,
    &reduce::REDUCE_MEAN,
    &reduce::REDUCE_MIN,
    &reduce::REDUCE_PROD,
    &reduce::REDUCE_SUM,
    &reduce::REDUCE_SUM_SQUARE,
    &strings::REGEX_FULL_MATCH,
    &unary::RELU,
    &reshape::RESHAPE,
    &resize::RESIZE,
    &reverse_sequence::REVERSE_SEQUENCE,
    &roi::ROI_ALIGN,
    &rotary_embedding::ROTARY_EMBEDDING,
    &unary::ROUND,
    &fourier::STFT,
    &scan::SCAN,
    &scatter::SCATTER,
    &scatter::SCATTER_ELEMENTS,
    &scatter::SCATTER_ND,
    &activation::SELU,
    &sequence::SEQUENCE_AT,
    &sequence::SEQUENCE_CONSTRUCT,
    &sequence::SEQUENCE_EMPTY,
    &sequence::SEQUENCE_ERASE,
    &sequence::SEQUENCE_INSERT,
    &sequence::SEQUENCE_LENGTH,
    &sequence::SEQUENCE_MAP,
    &shape::SHAPE,
    &activation::SHRINK,
    &unary::SIGMOID,
    &unary::SIGN,
    &norm::SIMPLIFIED_LAYER_NORMALIZATION,
    &unary::SIN,
    &unary::SINH,
    &shape::SIZE,
    &slice::SLICE,
    &softmax::SOFTMAX,
    &loss::SOFTMAX_CROSS_ENTROPY_LOSS,
    &unary::SOFTPLUS,
    &unary::SOFTSIGN,
    &depth_to_space::SPACE_TO_DEPTH,
    &split::SPLIT,
    &sequence::SPLIT_TO_SEQUENCE,
    &unary::SQRT,
    &squeeze::SQUEEZE,
    &strings::STRING_CONCAT,
    &strings::STRING_NORMALIZER,
    &strings::STRING_SPLIT,
    &binary::SUB,
    &binary::SUM,
    &activation::SWISH,
    &unary::TAN,
    &unary::TANH,
    &tensor_scatter::TENSOR_SCATTER,
    &tfidf::TF_IDF_VECTORIZER,
    &activation::THRESHOLDED_RELU,
    &expand::TILE,
    &topk::TOP_K,
    &transpose::TRANSPOSE,
    &trilu::TRILU,
    &unique::UNIQUE,
    &squeeze::UNSQUEEZE,
    &resize::UPSAMPLE,
    &where_::WHERE,
    &binary::XOR,
    &ml::features::ARRAY_FEATURE_EXTRACTOR,
    &ml::scaling::BINARIZER,
    &ml::maps::CAST_MAP,
    &ml::encoders::CATEGORY_MAPPER,
    &ml::maps::DICT_VECTORIZER,
    &ml::features::FEATURE_VECTORIZER,
    &ml::scaling::IMPUTER,
    &ml::encoders::LABEL_ENCODER,
    &ml::linear::LINEAR_CLASSIFIER,
    &ml::linear::LINEAR_REGRESSOR,
    &ml::scaling::NORMALIZER,
    &ml::encoders::ONE_HOT_ENCODER,
    &ml::svm::SVM_CLASSIFIER,
    &ml::svm::SVM_REGRESSOR,
    &ml::scaling::SCALER,
    &ml::tree_ensemble::TREE_ENSEMBLE,
    &ml::tree_votes::TREE_ENSEMBLE_CLASSIFIER,
    &ml::tree_ensemble::TREE_ENSEMBLE_REGRESSOR,
    &ml::maps::ZIP_MAP,
    &flex_attention::FLEX_ATTENTION,
    &optimizers::ADAGRAD,
    &optimizers::ADAM,
    &optimizers::MOMENTUM,
    &microsoft::attention::ATTENTION,
    &microsoft::gelu::BIAS_GELU,
    &microsoft::matrices::C_DIST,
    &microsoft::quantize::DEQUANTIZE_LINEAR,
    &microsoft::dynamic_quantize_lstm::DYNAMIC_QUANTIZE_LSTM,
    &microsoft::products::DYNAMIC_QUANTIZE_MAT_MUL,
    &microsoft::embed_norm::EMBED_LAYER_NORMALIZATION,
    &microsoft::earlier::EXPAND_DIMS,
    &microsoft::gelu::FAST_GELU,
    &microsoft::fused_conv::FUSED_CONV,
    &microsoft::fused_gemm::FUSED_GEMM,
    &microsoft::fused_matmul::FUSED_MATMUL,
    &microsoft::block_weights::GATHER_BLOCK_QUANTIZED,
    &microsoft::earlier::GATHER_ND,
    &microsoft::gelu::GELU,
    &microsoft::earlier::GRID_SAMPLE,
    &microsoft::group_query_attention::GROUP_QUERY_ATTENTION,
    &microsoft::matrices::INVERSE,
    &microsoft::block_weights::MAT_MUL_BNB4,
    &microsoft::products::MAT_MUL_INTEGER_16,
    &microsoft::products::MAT_MUL_INTEGER_TO_FLOAT,
    &microsoft::block_weights::MAT_MUL_N_BITS,
    &microsoft::attention::MULTI_HEAD_ATTENTION,
    &microsoft::qlinear_pool::NHWC_MAX_POOL,
    &microsoft::earlier::PAD,
    &microsoft::q_attention::Q_ATTENTION,
    &microsoft::q_embed_layer_normalization::Q_EMBED_LAYER_NORMALIZATION,
    &microsoft::products::Q_GEMM,
    &microsoft::qlinear::Q_LINEAR_ADD,
    &microsoft::qlinear_pool::Q_LINEAR_AVERAGE_POOL,
    &microsoft::qlinear::Q_LINEAR_CONCAT,
    &microsoft::qlinear_pool::Q_LINEAR_CONV,
    &microsoft::qlinear_pool::Q_LINEAR_GLOBAL_AVERAGE_POOL,
    &microsoft::qlinear::Q_LINEAR_LEAKY_RELU,
    &microsoft::qlinear::Q_LINEAR_MUL,
    &microsoft::qlinear_pool::Q_LINEAR_REDUCE_MEAN,
    &microsoft::qlinear::Q_LINEAR_SIGMOID,
    &microsoft::qlinear::Q_LINEAR_SOFTMAX,
    &microsoft::qlinear::Q_LINEAR_WHERE,
    &microsoft::quantize::QUANTIZE_LINEAR,
    &microsoft::gelu::QUICK_GELU,
    &microsoft::earlier::RANGE,
    &microsoft::rotary_embedding::ROTARY_EMBEDDING,
    &microsoft::skip_norm::SKIP_LAYER_NORMALIZATION,
    &microsoft::skip_norm::SKIP_SIMPLIFIED_LAYER_NORMALIZATION,
    &microsoft::fused_gemm::TRANSPOSE_MAT_MUL,
    &microsoft::earlier::TRILU,
    &microsoft::earlier::UNIQUE,
    &gradient::unary::ABS_GRAD,
    &gradient::unary::ACOS_GRAD,
    &gradient::unary::ACOSH_GRAD,
    &gradient::after::AFTER,
    &gradient::unary::ASIN_GRAD,
    &gradient::unary::ASINH_GRAD,
    &gradient::unary::ATAN_GRAD,
    &gradient::unary::ATANH_GRAD,
    &gradient::pool::AVERAGE_POOL_GRAD,
    &gradient::norm::BATCH_NORMALIZATION_GRAD,
    &gradient::unary::CELU_GRAD,
    &gradient::moved::CENTER_CROP_PAD_GRAD,
    &gradient::unary::CLIP_GRAD,
    &gradient::unfold::COL2IM_GRAD,
    &gradient::moved::COMPRESS_GRAD,
    &gradient::conv::CONV_GRAD,
    &gradient::unary::COS_GRAD,
    &gradient::unary::COSH_GRAD,
    &gradient::moved::DEPTH_TO_SPACE_GRAD,
    &gradient::quantize::DEQUANTIZE_LINEAR_GRAD,
    &gradient::unary::ELU_GRAD,
    &gradient::unary::ERF_GRAD,
    &gradient::unary::EXP_GRAD,
    &gradient::recurrent::GRU_GRAD,
    &gradient::moved::GATHER_ELEMENTS_GRAD,
    &gradient::moved::GATHER_GRAD,
    &gradient::moved::GATHER_ND_GRAD,
    &gradient::unary::GELU_GRAD,
    &gradient::pool::GLOBAL_AVERAGE_POOL_GRAD,
    &gradient::pool::GLOBAL_LP_POOL_GRAD,
    &gradient::pool::GLOBAL_MAX_POOL_GRAD,
    &gradient::grid_sample::GRID_SAMPLE_GRAD,
    &gradient::norm::GROUP_NORMALIZATION_GRAD,
    &gradient::unary::HARD_SIGMOID_GRAD,
    &gradient::unary::HARD_SWISH_GRAD,
    &gradient::norm::INSTANCE_NORMALIZATION_GRAD,
    &gradient::lines::LRN_GRAD,
    &gradient::recurrent::LSTM_GRAD,
    &gradient::norm::LAYER_NORMALIZATION_GRAD,
    &gradient::unary::LEAKY_RELU_GRAD,
    &gradient::unary::LOG_GRAD,
    &gradient::softmax::LOG_SOFTMAX_GRAD,
    &gradient::lines::LP_NORMALIZATION_GRAD,
    &gradient::pool::LP_POOL_GRAD,
    &gradient::pool::MAX_POOL_GRAD,
    &gradient::moved::MAX_UNPOOL_GRAD,
    &gradient::unary::MISH_GRAD,
    &gradient::loss::NEGATIVE_LOG_LIKELIHOOD_LOSS_GRAD,
    &gradient::moved::PAD_GRAD,
    &gradient::quantize::QUANTIZE_LINEAR_GRAD,
    &gradient::norm::RMS_NORMALIZATION_GRAD,
    &gradient::recurrent::RNN_GRAD,
    &gradient::unary::RECIPROCAL_GRAD,
    &gradient::reduce::REDUCE_PROD_GRAD,
    &gradient::unary::RELU_GRAD,
    &gradient::resize::RESIZE_GRAD,
    &gradient::moved::SCATTER_ELEMENTS_GRAD,
    &gradient::moved::SCATTER_ND_GRAD,
    &gradient::unary::SELU_GRAD,
    &gradient::unary::SIGMOID_GRAD,
    &gradient::unary::SIN_GRAD,
    &gradient::unary::SINH_GRAD,
    &gradient::moved::SLICE_GRAD,
    &gradient::loss::SOFTMAX_CROSS_ENTROPY_LOSS_GRAD,
    &gradient::softmax::SOFTMAX_GRAD,
    &gradient::unary::SOFTPLUS_GRAD,
    &gradient::unary::SOFTSIGN_GRAD,
    &gradient::moved::SPACE_TO_DEPTH_GRAD,
    &gradient::unary::SQRT_GRAD,
    &gradient::unary::SWISH_GRAD,
    &gradient::unary::TAN_GRAD,
    &gradient::unary::TANH_GRAD,
    &gradient::unary::THRESHOLDED_RELU_GRAD,
    &gradient::moved::TILE_GRAD,
    &gradient::broadcast::UNBROADCAST,
];

/// The operator of that domain (empty for `ai.onnx`) and name.
pub fn find(domain: &str, name: &str) -> Option<&'static OpDef> {
    static BY_NAME: LazyLock<HashMap<&str, Vec<&OpDef>>> = LazyLock::new(|| {
        let mut all = HashMap::<_, Vec<_>>::with_capacity(OPS.len());
        for op in OPS {
            all.entry(op.name).or_default().push(*op);
        }
        all
    });
    let domain = if domain == "ai.onnx" { "" } else { domain };
    let of_name = BY_NAME.get(name)?;
    of_name.iter().copied().find(|op| op.domain == domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_without_repeats() {
        for pair in OPS.windows(2) {
            assert!((pair[0].domain, pair[0].name) < (pair[1].domain, pair[1].name));
        }
    }
}
