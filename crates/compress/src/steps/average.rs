//! The step `average`: one model of the mean weights of several that were trained from the same beginning.

use std::borrow::Cow;

use edgesmith_ir::{DType, Error, Model, Node, Result, Tensor};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::quantize::changes::Changes;

/// The step: a uniform soup (M. Wortsman et al., 2022, section 2).
pub static AVERAGE: StepDef = StepDef {
    name: "average",
    about: "Averages the weights of models that were trained from the same beginning",
    groups: &[Group {
        of: &[],
        keys: KEYS,
    }],
    layers: false,
    data: |given| others(given).map(|_| Data::Unused),
    bits: |_| None,
    apply,
};

const KEYS: &[Key] = &[Key {
    name: "with",
    value: "MODEL",
    about: "A model of the same network, trained from the same beginning with other random numbers",
    kind: Kind::Texts,
}];

fn others(given: &Given) -> Result<Vec<String>> {
    let others = given.texts("with");
    if others.is_empty() {
        let error = Error::usage("there is nothing to average with").at(given.place.as_str());
        return Err(error.hint("name the other models: with = [\"b.onnx\"], or --with b.onnx"));
    }
    Ok(others)
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let paths = others(given)?;
    let open = work.open;
    let open = open.ok_or_else(|| Error::internal("nobody opens the other models"))?;
    let mut sums = sums_of(model)?;
    for path in &paths {
        let other = open(path)?;
        same_network(model, &other)
            .and_then(|()| add(model, &other, &mut sums))
            .map_err(|e| e.at(path.clone()))?;
    }
    let count = paths.len() + 1;
    let mut mean = model.clone();
    let mut averaged = 0;
    for ((v, value), sum) in model.graph.values().zip(sums) {
        let (Some(sum), Some(old)) = (sum, &value.constant) else {
            continue;
        };
        let numbers = sum.iter().map(|s| (s / count as f64) as f32).collect();
        mean.graph.value_mut(v).constant = Some(Tensor::from_vec(old.dims(), numbers)?);
        averaged += 1;
    }
    let mut changes = Changes::default();
    let mut notes = vec![format!("{averaged} constants are means of {count} models")];
    if model.graph.nodes().any(|(_, n)| n.is("BatchNormalization")) {
        notes.push("running statistics of BatchNormalization are averaged too, and are not those of the mean weights: fold them before, or train on".into());
    }
    changes.tell(notes, work.follow);
    Ok((mean, changes))
}

/// The numbers of each constant of f32, by place.
fn sums_of(model: &Model) -> Result<Vec<Option<Vec<f64>>>> {
    let floats = |t: &Tensor| -> Result<Vec<f64>> {
        Ok(t.to_f32()?.iter().map(|x| f64::from(*x)).collect())
    };
    let values = model.graph.values();
    let constants = values.map(|(_, v)| v.constant.as_ref().filter(|t| t.dtype() == DType::F32));
    constants.map(|t| t.map(floats).transpose()).collect()
}

/// Refuses another network.
fn same_network(model: &Model, other: &Model) -> Result<()> {
    let ops = |m: &Model| -> Vec<(String, String)> {
        let key = |n: &Node| (n.op.clone(), n.name.clone());
        m.graph.nodes().map(|(_, n)| key(n)).collect()
    };
    match ops(model) == ops(other) {
        true => Ok(()),
        false => Err(
            Error::invalid("it is another network: its nodes are others")
                .hint("models of one network, trained from the same file, can be averaged"),
        ),
    }
}

/// Adds the constants of `other`; what is no float must be the same.
fn add(model: &Model, other: &Model, sums: &mut [Option<Vec<f64>>]) -> Result<()> {
    for ((_, value), sum) in model.graph.values().zip(sums) {
        let Some(own) = &value.constant else { continue };
        let found = other.graph.find_value(&value.name);
        let found = found.and_then(|v| other.graph.constant(v));
        let place = || format!("value \"{}\"", value.name);
        let missing = || Error::invalid("the other model has no such constant").at(place());
        let data = found.ok_or_else(missing)?;
        if data.dims() != own.dims() || data.dtype() != own.dtype() {
            let what = format!(
                "it is {} in one model and {} in the other",
                own.ty(),
                data.ty()
            );
            return Err(Error::invalid(what).at(place()));
        }
        match sum {
            Some(sum) => {
                let numbers: Cow<[f32]> = data.to_f32()?;
                sum.iter_mut()
                    .zip(&*numbers)
                    .for_each(|(s, x)| *s += f64::from(*x));
            }
            None if data != own => {
                return Err(
                    Error::invalid("integers of the models differ, and have no mean")
                        .at(place())
                        .hint("average the float models, and quantise their mean"),
                );
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use edgesmith_ir::{NoProgress, text};

    use super::*;
    use crate::steps::Setting;

    fn net(w: &str, shape: &str) -> Model {
        let text = format!(
            "opset 17 graph g(x: f32[n,2]) -> (y) {{ s: i64[2] = {shape} w: f32[2,2] = {w}
             m = MatMul(x, w) y = Reshape(m, s) }}"
        );
        text::parse(&text).unwrap()
    }

    fn averaged(models: &BTreeMap<&str, Model>) -> Result<Model> {
        let mut given = Given::new(&AVERAGE, "recipe");
        let others: Vec<String> = models.keys().skip(1).map(|k| (*k).to_owned()).collect();
        given.set("with", Setting::Texts(others), "with")?;
        let open = |path: &str| Ok(models[path].clone());
        let mut work = Work {
            samples: None,
            count: None,
            seed: None,
            evaluate: None,
            size: None,
            stores: None,
            base: Path::new(""),
            open: Some(&open),
            read_masks: None,
            progress: &NoProgress,
            follow: &NoProgress,
            warnings: Vec::new(),
        };
        apply(&given, &models["a"], &mut work).map(|(m, _)| m)
    }

    #[test]
    fn weights_are_the_mean_of_all() {
        let models = BTreeMap::from([
            ("a", net("{1,2,3,4}", "{0,2}")),
            ("b", net("{3,2,3,0}", "{0,2}")),
            ("c", net("{2,2,3,2}", "{0,2}")),
        ]);
        let mean = averaged(&models).unwrap();
        let w = mean.graph.find_value("w").unwrap();
        assert_eq!(
            *mean.graph.constant(w).unwrap().to_f32().unwrap(),
            [2.0, 2.0, 3.0, 2.0]
        );
    }

    #[test]
    fn integers_that_differ_are_refused() {
        let models = BTreeMap::from([
            ("a", net("{1,2,3,4}", "{0,2}")),
            ("b", net("{1,2,3,4}", "{-1,2}")),
        ]);
        let e = averaged(&models).unwrap_err().to_string();
        assert!(e.contains("have no mean") && e.contains("\"s\""), "{e}");
    }

    #[test]
    fn another_network_is_refused() {
        let other = text::parse("opset 17 graph g(x: f32[n,2]) -> (y) { y = Relu(x) }").unwrap();
        let models = BTreeMap::from([("a", net("{1,2,3,4}", "{0,2}")), ("b", other)]);
        let e = averaged(&models).unwrap_err().to_string();
        assert!(e.contains("another network"), "{e}");
    }
}
