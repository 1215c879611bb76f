//! Every operator that claims to be evaluated proves it on its examples.

use edgesmith_ir::ops::{self, OPS, OpDef};
use edgesmith_ir::text::{example, parse, print};
use edgesmith_ir::types::Type;
use edgesmith_ir::{Item, Model, Result, Tensor, eval, infer};

fn outputs(model: &Model, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let named: Vec<(&str, Tensor)> = model
        .graph
        .inputs
        .iter()
        .zip(inputs)
        .map(|(&v, t)| (model.graph.value(v).name.as_str(), t.clone()))
        .collect();
    eval::evaluate(model, &named)
}

fn check(def: &OpDef, text: &str) -> Result<()> {
    let (model, inputs) = example(text)?;
    let (_, node) = model.graph.nodes().next().expect("an example has a node");
    assert_eq!(
        (node.op.as_str(), node.domain.as_str()),
        (def.name, def.domain)
    );
    let inferred = infer::infer(&model, &[])?;
    let found = outputs(&model, &inputs)?;
    for (&v, t) in model.graph.outputs.iter().zip(&found) {
        let Some(Type::Tensor(ty)) = &inferred.types[v.index()] else {
            panic!("{text}: no tensor type is inferred for an output");
        };
        assert_eq!(ty.dtype, t.dtype(), "{text}: element type");
        if let Some(shape) = &ty.shape {
            assert!(
                shape
                    .unify(t.ty().shape.as_ref().expect("a tensor has a shape"))
                    .is_some(),
                "{text}: inferred {ty}, evaluated to {}",
                t.ty()
            );
        }
        if let (Some(dims), Ok(values)) = (&inferred.contents[v.index()], t.to_i64()) {
            let known = dims
                .iter()
                .zip(&values)
                .all(|(d, &v)| d.known().is_none_or(|n| n as i64 == v));
            assert!(
                known && dims.len() == values.len(),
                "{text}: contents {dims:?}, not {values:?}"
            );
        }
    }
    let printed = print(&model)?;
    let again = parse(&printed)?;
    assert_eq!(print(&again)?, printed);
    if def.deterministic {
        assert_eq!(
            outputs(&again, &inputs)?,
            found,
            "{text}: read back from its text"
        );
    }
    Ok(())
}

#[test]
fn every_evaluated_operator_has_examples_that_run() {
    let mut faults = Vec::new();
    for def in OPS {
        if def.eval.is_some() && def.examples.is_empty() {
            faults.push(format!("{}.{}: no examples", def.domain, def.name));
        }
        for text in def.examples {
            let result = std::panic::catch_unwind(|| check(def, text));
            match result {
                Ok(Ok(())) => {}
                Ok(Err(e)) => faults.push(format!("{text}: {e}")),
                Err(_) => faults.push(format!("{text}: panicked")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The shapes and values that a hostile file may give: none may end the program.
#[test]
fn odd_inputs_are_errors_and_never_panics() {
    let odd = [
        Tensor::from_vec(&[0, 3], Vec::<f32>::new()).unwrap(),
        Tensor::scalar(-1i64),
        Tensor::vector(vec![i64::MAX, i64::MIN, -1]),
        Tensor::from_vec(&[1, 2, 1], vec![i64::MIN, i64::MAX]).unwrap(),
        Tensor::vector(vec![f32::NAN, f32::INFINITY]),
        Tensor::from_strings(&[1], vec!["x".into()]).unwrap(),
        Tensor::from_bools(&[2, 1], &[true, false]).unwrap(),
    ];
    let mut panics = Vec::new();
    for def in OPS.iter().filter(|d| d.is_evaluated()) {
        for text in def.examples {
            let (model, _) = example(text).unwrap();
            let (_, node) = model.graph.nodes().next().unwrap();
            for slot in 0..node.inputs().len() {
                for t in &odd {
                    let call = || {
                        let (model, data) = example(text).unwrap();
                        let (_, node) = model.graph.nodes().next().unwrap();
                        let mut data = data.into_iter();
                        let inputs: Vec<Option<Item>> = (0..node.inputs().len())
                            .map(|i| {
                                let v = node.input(i)?;
                                let own = model.graph.constant(v).cloned().or_else(|| data.next());
                                let one = if i == slot { Some(t.clone()) } else { own };
                                one.map(Item::Tensor)
                            })
                            .collect();
                        let _ = eval::evaluate_node(&eval::EvalCx::new(&model, node, &inputs));
                    };
                    if std::panic::catch_unwind(call).is_err() {
                        panics.push(format!("{text}: input {slot} as {}", t.ty()));
                    }
                }
            }
        }
    }
    assert!(panics.is_empty(), "{}", panics.join("\n"));
    assert!(ops::find("", "Relu").is_some());
}
