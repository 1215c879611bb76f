//! What goes into a run, checked against what the model declares.

use std::collections::BTreeMap;

use edgesmith_ir::types::{Dim, Type};
use edgesmith_ir::{Error, Item, Result, Tensor};

use super::{Session, ValueInfo};

impl Session {
    /// The value of each graph input, its default where it has one.
    pub(super) fn check_inputs(&self, inputs: &[(&str, Item)]) -> Result<Vec<Item>> {
        for (name, _) in inputs {
            if !self.inputs.iter().any(|i| i.name == *name) {
                let names: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(Error::invalid(format!("the model has no input \"{name}\""))
                    .hint(format!("its inputs are {}", names.join(", "))));
            }
        }
        let graph = &self.program.model.graph;
        let mut symbols = BTreeMap::new();
        let mut fed = Vec::new();
        for (&v, info) in graph.inputs.iter().zip(&self.inputs) {
            let given = inputs
                .iter()
                .find(|(n, _)| *n == info.name)
                .map(|(_, item)| item.clone());
            let item = given
                .or_else(|| graph.value(v).constant.clone().map(Item::Tensor))
                .ok_or_else(|| Error::invalid(format!("input \"{}\" is missing", info.name)))?;
            if let Some(declared) = &graph.value(v).ty {
                info.check(&item, declared)?;
            }
            if let Item::Tensor(tensor) = &item {
                info.check_symbols(tensor, &mut symbols)?;
            }
            fed.push(item);
        }
        Ok(fed)
    }
}

/// True where the value may stand for the type.
fn fits(item: &Item, declared: &Type) -> bool {
    match (item, declared) {
        (Item::Tensor(t), Type::Tensor(expected)) => {
            expected.dtype == t.dtype()
                && expected.shape.as_ref().is_none_or(|shape| {
                    let same = |(d, &n): (&Dim, &usize)| d.known().is_none_or(|k| k == n);
                    shape.rank() == t.rank() && shape.iter().zip(t.dims()).all(same)
                })
        }
        (Item::Sequence(items), Type::Sequence(ty)) => items.iter().all(|i| fits(i, ty)),
        (Item::Optional(held), Type::Optional(ty)) => held.as_ref().is_none_or(|i| fits(i, ty)),
        (Item::Map(map), Type::Map(..)) => map.ty().common(declared).is_some(),
        _ => false,
    }
}

impl ValueInfo {
    /// Refuses a tensor in which a named dimension has another length than in `symbols`, where
    /// those of this tensor are added.
    fn check_symbols(
        &self,
        tensor: &Tensor,
        symbols: &mut BTreeMap<String, (usize, String)>,
    ) -> Result<()> {
        let shape = self.ty.as_ref().and_then(|t| t.shape.as_ref());
        for (dim, &n) in shape.iter().flat_map(|s| s.iter()).zip(tensor.dims()) {
            let Dim::Symbol(symbol) = dim else { continue };
            let known = symbols
                .entry(symbol.to_string())
                .or_insert_with(|| (n, self.name.clone()));
            if known.0 != n {
                let (first, of) = known;
                return Err(Error::invalid(format!(
                    "axis \"{symbol}\" has length {n}, but {first} in input \"{of}\""
                ))
                .at(format!("input \"{}\"", self.name))
                .hint("axes of one name have one length in a run"));
            }
        }
        Ok(())
    }

    /// Refuses a value that contradicts the declared type.
    fn check(&self, item: &Item, declared: &Type) -> Result<()> {
        if fits(item, declared) {
            return Ok(());
        }
        Err(Error::invalid(format!("expected {declared}, found {item}"))
            .at(format!("input \"{}\"", self.name))
            .hint("the data must have the model's types and shapes; names in the shape are free"))
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::types::TensorType;
    use edgesmith_ir::{DType, Shape};

    use super::*;

    #[test]
    fn every_value_of_a_sequence_must_fit() {
        let of = |n| TensorType::fixed(DType::F32, &[n]).into();
        let ty = |n| Type::Sequence(Box::new(of(n)));
        let items = Item::tensors(vec![Tensor::vector(vec![1f32, 2.0])]);
        assert!(fits(&items, &ty(2)) && !fits(&items, &ty(3)) && !fits(&items, &of(2)));
        let any = TensorType::new(DType::F32, Shape::unknown(1)).into();
        let optional = Type::Optional(Box::new(Type::Sequence(Box::new(any))));
        assert!(fits(&Item::some(items.clone()), &optional));
        assert!(fits(&Item::nothing(), &optional) && !fits(&items, &optional));
    }
}
