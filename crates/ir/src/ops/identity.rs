//! Identity: the input again.

use super::OpDef;
use crate::Result;
use crate::infer::{self, InferCx};

/// ONNX Identity.
pub static IDENTITY: OpDef = OpDef {
    name: "Identity",
    since: &[1, 13, 14, 16, 19, 21, 23, 24, 25],
    infer,
    eval_items: Some(|cx| Ok(vec![cx.get(0)?.clone()])),
    examples: &["Identity(f32[2,3])", "Identity(string[2]{\"a\",\"b\"})"],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    if let Some(contents) = cx.contents(0).map(<[_]>::to_vec) {
        cx.set_contents(0, contents);
    }
    infer::like_first(cx)
}
