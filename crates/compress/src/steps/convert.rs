//! The step `convert`: a newer opset.

use edgesmith_ir::Result;
use edgesmith_passes::{NEWEST, OLDEST, convert_opset};

use super::{Data, Given, Group, Key, Kind, StepDef};
use crate::quantize::changes::Changes;

/// The step.
pub static CONVERT: StepDef = StepDef {
    name: "convert",
    about: "Raises the opset of the default domain",
    groups: &[Group {
        of: &[],
        keys: KEYS,
    }],
    layers: false,
    data: |given| opset(given).map(|_| Data::Unused),
    bits: |_| None,
    apply: |given, model, _| {
        let mut out = model.clone();
        if let Some(opset) = opset(given)? {
            convert_opset(&mut out, opset)?;
        }
        Ok((out, Changes::default()))
    },
};

const KEYS: &[Key] = &[Key {
    name: "opset",
    value: "N",
    about: "Raise the opset of the default domain to N",
    kind: Kind::Count,
}];

fn opset(given: &Given) -> Result<Option<i64>> {
    let Some(n) = given.count("opset") else {
        return Ok(None);
    };
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    match (OLDEST..=NEWEST).contains(&n) {
        true => Ok(Some(n)),
        false => {
            let what = format!("opset {n}: opsets from {OLDEST} to {NEWEST} are known");
            Err(given.fault("opset", what))
        }
    }
}
