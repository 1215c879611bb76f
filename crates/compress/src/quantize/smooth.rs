//! SmoothQuant: moves the spread between channels from activations into weights, where each output
//! has a scale of its own (Xiao et al. 2022, "SmoothQuant: accurate and efficient post-training
//! quantization for large language models", equation 4).
//!
//! `Y = (X·diag(s)⁻¹)·(diag(s)·W)` with `s = max|X|^α / max|W|^(1−α)` by channel. The division goes into
//! the normalisation or the constant factor before, or into a Mul where there is none. `α` is taken
//! from a grid, for each input apart, by the expected squared error of its products; beside it stand
//! factors for the few largest channels alone.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Graph, Model, Node, NodeId, Result, Tensor, ValueId};

use super::rules;
use crate::calibrate::{Channels, Statistics};

/// Exponents that are tried: 0 to 1 in so many steps.
const GRID: usize = 20;

/// How much lower each cut of the largest channels is than the one before.
const CUT: f64 = 0.8;

/// What the error must fall to, as a share, before a node is added for it.
const WORTH: f64 = 0.8;

/// Products that read one input, with their constant weights.
struct Group {
    input: ValueId,
    products: Vec<Product>,
}

/// A product `x·W`, `W` of `[k, n]`.
struct Product {
    id: NodeId,
    weight: Vec<f32>,
    k: usize,
    n: usize,
    transposed: bool,
}

impl Product {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        let v = node.input(1)?;
        let t = graph.constant(v).filter(|t| t.rank() == 2)?;
        graph.sole_consumer(v)?;
        let int = |name| node.int(name).unwrap_or(0) != 0;
        let transposed = match node.op.as_str() {
            "MatMul" if node.domain.is_empty() => false,
            "Gemm" if node.domain.is_empty() && !int("transA") => int("transB"),
            _ => return None,
        };
        let (rows, columns) = (t.dims()[0], t.dims()[1]);
        let (k, n) = if transposed {
            (columns, rows)
        } else {
            (rows, columns)
        };
        Some(Self {
            id,
            weight: t.to_f32().ok()?.into_owned(),
            k,
            n,
            transposed,
        })
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.weight[if self.transposed {
            column * self.k + row
        } else {
            row * self.n + column
        }]
    }

    /// The weight with its rows multiplied by `s`.
    fn scaled(&self, s: &[f64]) -> Result<Tensor> {
        let row = |i: usize| {
            if self.transposed {
                i % self.k
            } else {
                i / self.n
            }
        };
        let weight = self.weight.iter().enumerate();
        let data = weight
            .map(|(i, w)| (f64::from(*w) * s[row(i)]) as f32)
            .collect();
        let dims = if self.transposed {
            [self.n, self.k]
        } else {
            [self.k, self.n]
        };
        Tensor::from_vec(&dims, data)
    }

    /// The expected squared error of the output where rows are multiplied by `s`: rounding of the
    /// input in steps of `step`, and of the weights in 1/127 of each column.
    fn error(&self, s: &[f64], step: f64, squares: &[f64]) -> f64 {
        let mut most = vec![0.0f64; self.n];
        let (mut spread, mut power) = (0.0, 0.0);
        for (row, (s, x)) in s.iter().zip(squares).enumerate() {
            for (column, most) in most.iter_mut().enumerate() {
                let w = f64::from(self.at(row, column)) * s;
                spread += w * w;
                *most = most.max(w.abs());
            }
            power += x / (s * s);
        }
        let steps: f64 = most.iter().map(|m| (m / 127.0).powi(2)).sum();
        (step * step * spread + steps * power) / 12.0
    }
}

/// Smooths the inputs of products where that lowers their error; activations are rounded to `steps`
/// steps of their range. The result computes the same in
/// floats, up to rounding. The second answer names the values that differ from the model's: those
/// need new statistics.
///
/// # Errors
/// When the graph has a cycle.
pub fn smooth(
    model: &Model,
    statistics: &Statistics,
    steps: f64,
) -> Result<(Model, BTreeSet<String>)> {
    let mut out = model.clone();
    let mut changed = BTreeSet::new();
    for group in groups(&model.graph)? {
        let seen = statistics.of(&model.graph.value(group.input).name);
        let Some(channels) = seen.and_then(|s| s.channels.as_ref()) else {
            continue;
        };
        if group.products.iter().any(|p| p.k != channels.sums.len()) {
            continue;
        }
        let folds = folds(&out.graph, &group);
        if !folds && !is_float(&out.graph, group.input) {
            continue;
        }
        let (factors, share) = best(&group, channels, steps);
        if share < if folds { 1.0 } else { WORTH } {
            changed.insert(apply(&mut out.graph, &group, &factors, folds)?);
        }
    }
    super::drop_unused(&mut out.graph);
    Ok((out, changed))
}

fn groups(graph: &Graph) -> Result<Vec<Group>> {
    let mut order = Vec::new();
    let mut found: BTreeMap<ValueId, Vec<Product>> = BTreeMap::new();
    for id in graph.order()? {
        let Some(v) = graph.node(id).input(0) else {
            continue;
        };
        if let Some(product) = Product::of(graph, id).filter(|_| graph.constant(v).is_none()) {
            let products = found.entry(v).or_default();
            if products.is_empty() {
                order.push(v);
            }
            products.push(product);
        }
    }
    let group = |input| Group {
        input,
        products: found.remove(&input).unwrap_or_default(),
    };
    Ok(order.into_iter().map(group).collect())
}

/// The best factors, and the share of the error that they leave.
fn best(group: &Group, channels: &Channels, steps: f64) -> (Vec<f64>, f64) {
    let k = channels.sums.len();
    let magnitudes = channels.magnitudes();
    let squares = channels.mean_squares();
    let largest = |row: usize| {
        let columns = group
            .products
            .iter()
            .flat_map(|p| (0..p.n).map(move |c| p.at(row, c).abs()));
        columns.fold(0.0f32, f32::max)
    };
    let weights: Vec<f32> = (0..k).map(largest).collect();
    let error = |s: &[f64]| {
        let ends = channels.min.iter().zip(&channels.max).zip(s);
        let (lo, hi) = ends.fold((0.0f64, 0.0f64), |(lo, hi), ((&a, &b), s)| {
            (lo.min(f64::from(a) / s), hi.max(f64::from(b) / s))
        });
        let step = (hi - lo) / steps;
        group
            .products
            .iter()
            .map(|p| p.error(s, step, &squares))
            .sum::<f64>()
    };
    let plain = error(&vec![1.0; k]);
    let mut best = (vec![1.0; k], plain);
    for factors in candidates(&magnitudes, &weights) {
        let e = error(&factors);
        if e < best.1 {
            best = (factors, e);
        }
    }
    let share = if plain > 0.0 { best.1 / plain } else { 1.0 };
    (best.0, share)
}

/// The factors that are tried: those of each `α`, and those that only bring the largest channels down
/// to a part of the largest, which the weights of the others do not feel.
fn candidates(magnitudes: &[f32], weights: &[f32]) -> Vec<Vec<f64>> {
    let pairs: Vec<(f64, f64)> = magnitudes
        .iter()
        .zip(weights)
        .map(|(&x, &w)| (f64::from(x), f64::from(w)))
        .collect();
    let all = |factor: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        let one = |&(x, w): &(f64, f64)| {
            let s = factor(x, w);
            if x > 0.0 && w > 0.0 {
                s.clamp(1e-4, 1e4)
            } else {
                1.0
            }
        };
        pairs.iter().map(one).collect()
    };
    let largest = magnitudes.iter().fold(0.0f32, |m, &x| m.max(x));
    let alphas = (0..=GRID).map(|i| {
        let alpha = i as f64 / GRID as f64;
        all(&|x, w| x.powf(alpha) / w.powf(1.0 - alpha))
    });
    let cuts = (1..=GRID).map(|i| {
        let end = f64::from(largest) * CUT.powi(i as i32);
        all(&|x, _| (x / end).max(1.0))
    });
    alphas.chain(cuts).collect()
}

/// True where the maker of the input can take the factors: a normalisation over the last axis or a
/// product with one number, which nothing else reads.
fn folds(graph: &Graph, group: &Group) -> bool {
    let value = graph.value(group.input);
    let alone = value.consumers().len() == group.products.len();
    let Some((id, 0)) = value
        .producer()
        .filter(|_| alone && !graph.is_output(group.input))
    else {
        return false;
    };
    let node = graph.node(id);
    if !node.domain.is_empty() || graph.captured().contains(&group.input) {
        return false;
    }
    let constant = |i: usize| node.input(i).is_some_and(|v| graph.constant(v).is_some());
    match node.op.as_str() {
        "LayerNormalization" => {
            node.int("axis").unwrap_or(-1) == -1
                && constant(1)
                && (node.input(2).is_none() || constant(2))
        }
        "Mul" => factor_of(graph, node).is_some(),
        _ => false,
    }
}

/// True where what makes `v` stays float, so that a factor after it costs no second rounding.
fn is_float(graph: &Graph, v: ValueId) -> bool {
    let maker = graph.value(v).producer();
    maker.is_some_and(|(id, _)| rules::find(graph.node(id)).is_none_or(|r| !r.default))
}

/// The position of the constant of one number that a Mul multiplies with.
fn factor_of(graph: &Graph, node: &Node) -> Option<usize> {
    let is_factor = |i: usize| {
        node.input(i)
            .and_then(|v| graph.constant(v))
            .is_some_and(|t| t.count() == 1)
    };
    (0..2).find(|&i| is_factor(i))
}

/// Multiplies the weights and divides the input; gives the name of the divided value.
fn apply(graph: &mut Graph, group: &Group, factors: &[f64], folds: bool) -> Result<String> {
    for product in &group.products {
        let name = graph
            .node(product.id)
            .input(1)
            .map_or("", |v| &graph.value(v).name);
        let name = graph.fresh_name(&format!("{name}_smooth"));
        let weight = graph.add_constant(&name, product.scaled(factors)?);
        graph.set_input(product.id, 1, Some(weight));
    }
    if folds && let Some((id, _)) = graph.value(group.input).producer() {
        let inputs = match graph.node(id).is("Mul") {
            true => factor_of(graph, graph.node(id)).into_iter().collect(),
            false => vec![1, 2],
        };
        for i in inputs {
            divide(graph, id, i, factors)?;
        }
        return Ok(graph.value(group.input).name.clone());
    }
    let inverse = factors.iter().map(|s| (1.0 / s) as f32).collect();
    let name = graph.value(group.input).name.clone();
    let inverse = Tensor::vector(inverse);
    let inverse_name = graph.fresh_name(&format!("{name}_factors"));
    let inverse = graph.add_constant(&inverse_name, inverse);
    let node = Node::new("Mul", &graph.fresh_name(&format!("{name}_smooth")));
    let divided = graph.add_op(node, &[group.input, inverse], &format!("{name}_smooth"));
    graph.value_mut(divided).ty = graph.value(group.input).ty.clone();
    for product in &group.products {
        graph.set_input(product.id, 0, Some(divided));
    }
    Ok(graph.value(divided).name.clone())
}

/// Divides a constant input, of one number or one for each factor, by the factors.
fn divide(graph: &mut Graph, id: NodeId, i: usize, factors: &[f64]) -> Result<()> {
    let Some(v) = graph.node(id).input(i) else {
        return Ok(());
    };
    let Some(t) = graph.constant(v) else {
        return Ok(());
    };
    let data = t.to_f32()?;
    let at = |j: usize| f64::from(data[if data.len() == 1 { 0 } else { j }]);
    let divided = factors.iter().enumerate().map(|(j, s)| (at(j) / s) as f32);
    let divided = Tensor::vector(divided.collect());
    super::replace_constant(graph, id, i, "smooth", divided);
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text, verify};

    use super::*;
    use crate::calibrate::ValueStatistics;

    /// A normalisation that only products read, one that a sum reads too, and a scaled product.
    const NET: &str = r#"
opset 17
graph net(x: f32[n,4]) -> (y: f32[n,2], z: f32[n,4]) {
  g: f32[4] = {1.0,30.0,0.5,1.0}
  b: f32[4] = {0.1,2.0,-0.3,0.0}
  w: f32[4,3] = {0.5,-0.25,1.0,0.75,0.3,0.7,-0.4,0.2,0.1,0.9,-0.8,0.6}
  v: f32[2,3] = {0.4,-0.6,0.2,0.8,0.1,-0.9}
  u: f32[4,4] = {0.5,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,0.1,0.2,0.3,0.4,0.5}
  half: f32[] = {0.5}
  h = LayerNormalization(x, g, b) {axis=-1, name="h"}
  p = MatMul(h, w) {name="p"}
  q = Mul(p, half) {name="q"}
  y = Gemm(q, v) {transB=1, name="y"}
  k = LayerNormalization(x, g, b) {axis=-1, name="k"}
  r = MatMul(k, u) {name="r"}
  z = Add(r, k) {name="z"}
}
"#;

    fn input() -> Tensor {
        let data = (0..64)
            .map(|i| ((i * 37 % 29) as f32 - 14.0) * 0.3)
            .collect();
        Tensor::from_vec(&[16, 4], data).unwrap()
    }

    fn statistics(model: &Model) -> Statistics {
        let mut s = Statistics::default();
        eval::evaluate_with(model, &[("x", input())], &mut |v, t| {
            let seen = s.values.entry(model.graph.value(v).name.clone());
            let seen = seen.or_insert_with(|| ValueStatistics::new(Some(-1)));
            seen.add(t).unwrap();
        })
        .unwrap();
        s
    }

    #[test]
    fn the_float_function_stays() {
        let model = text::parse(NET).unwrap();
        let (smoothed, changed) = smooth(&model, &statistics(&model), 255.0).unwrap();
        verify::verify(&smoothed).unwrap();
        assert!(
            changed.contains("h") && changed.contains("k_smooth"),
            "{changed:?}"
        );
        let a = eval::evaluate(&model, &[("x", input())]).unwrap();
        let b = eval::evaluate(&smoothed, &[("x", input())]).unwrap();
        for (a, b) in a.iter().zip(&b) {
            let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
            let most = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!(a.iter().zip(&*b).all(|(a, b)| (a - b).abs() <= 1e-5 * most));
        }
    }

    #[test]
    fn the_expected_error_falls_and_is_what_rounding_costs() {
        let model = text::parse(NET).unwrap();
        let s = statistics(&model);
        let groups = groups(&model.graph).unwrap();
        let channels = s.of("h").unwrap().channels.as_ref().unwrap();
        let group = groups
            .iter()
            .find(|g| model.graph.value(g.input).name == "h")
            .unwrap();
        let (factors, share) = best(group, channels, 255.0);
        assert!(share < WORTH, "{share}");
        assert!(factors[1] > factors[0]);
        let again = best(
            &Group {
                input: group.input,
                products: group
                    .products
                    .iter()
                    .map(|p| Product {
                        weight: p.scaled(&factors).unwrap().to_f32().unwrap().into_owned(),
                        ..*p
                    })
                    .collect(),
            },
            &Channels {
                min: channels
                    .min
                    .iter()
                    .zip(&factors)
                    .map(|(x, s)| x / *s as f32)
                    .collect(),
                max: channels
                    .max
                    .iter()
                    .zip(&factors)
                    .map(|(x, s)| x / *s as f32)
                    .collect(),
                squares: channels
                    .squares
                    .iter()
                    .zip(&factors)
                    .map(|(x, s)| x / (s * s))
                    .collect(),
                ..channels.clone()
            },
            255.0,
        );
        assert!(again.1 > 0.9, "smoothing twice gains {}", again.1);
    }

    #[test]
    fn what_was_not_seen_is_left() {
        let model = text::parse(NET).unwrap();
        let (same, changed) = smooth(&model, &Statistics::default(), 255.0).unwrap();
        assert!(changed.is_empty());
        assert_eq!(text::print(&same).unwrap(), text::print(&model).unwrap());
    }
}
