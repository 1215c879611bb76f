//! Turns Einsum into MatMul, where it is a product of matrices.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::ops::einsum::{Equation, Label, equation, parse};
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, shape, tensor_type};

/// Equations of two terms with one sum, between Transposes where their axes stand in another order.
pub static PASS: Pass = Pass {
    name: "einsum_to_matmul",
    about: "write Einsum of two operands as MatMul and Transposes",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let nodes = nodes_of(graph, &["Einsum"]);
        if nodes.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let changes = nodes
            .into_iter()
            .filter_map(|id| turn(&mut editor, id, &types));
        Ok(changes.count())
    })
}

/// In what order MatMul has the axes of both operands and of what it makes.
struct Product {
    operands: [Vec<Label>; 2],
    made: Vec<Label>,
    /// Which axis of each operand is summed over, as the equation has them.
    summed: [usize; 2],
}

impl Product {
    fn of(eq: &Equation) -> Option<Self> {
        let [a, b] = eq.inputs.as_slice() else {
            return None;
        };
        let once = |labels: &[Label]| (1..labels.len()).all(|i| !labels[..i].contains(&labels[i]));
        let out = &eq.output;
        if !once(a) || !once(b) {
            return None;
        }
        let pick = |from: &[Label], [in_a, in_b, in_out]: [bool; 3]| -> Vec<Label> {
            let is = |l: &&Label| {
                [a.contains(l), b.contains(l), out.contains(l)] == [in_a, in_b, in_out]
            };
            from.iter().filter(is).copied().collect()
        };
        let batch = pick(out, [true, true, true]);
        let (rows, columns) = (
            pick(out, [true, false, true]),
            pick(out, [false, true, true]),
        );
        let sums = pick(a, [true, true, false]);
        let alone = pick(a, [true, false, false]).len() + pick(b, [false, true, false]).len();
        // Rows of several axes are a matrix for each of the first ones.
        let fits = columns.len() == 1 && (rows.len() == 1 || rows.len() > 1 && batch.is_empty());
        let &[sum] = sums.as_slice() else {
            return None;
        };
        (fits && alone == 0).then_some(())?;
        let place = |labels: &[Label]| labels.iter().position(|&l| l == sum);
        Some(Self {
            operands: [
                [&batch, &rows, &sums[..]].concat(),
                [&batch, &sums[..], &columns].concat(),
            ],
            made: [batch, rows, columns].concat(),
            summed: [place(a)?, place(b)?],
        })
    }
}

/// A Transpose of axes `from` to `to`; `None` where they are the same.
fn transpose(from: &[Label], to: &[Label]) -> Option<Node> {
    let places = to.iter().filter_map(|l| from.iter().position(|o| o == l));
    let perm: Vec<i64> = places.map(|i| i as i64).collect();
    let moves = perm.iter().enumerate().any(|(i, &p)| p != i as i64);
    moves.then(|| Node::new("Transpose", "").with("perm", Attribute::Ints(perm)))
}

fn turn(editor: &mut Editor, id: NodeId, types: &Inferred) -> Option<()> {
    let node = editor.graph.node(id);
    let operands = [node.input(0)?, node.input(1)?];
    if node.inputs().len() != 2 {
        return None;
    }
    let shapes = [shape(types, operands[0])?, shape(types, operands[1])?];
    let eq = parse(equation(node).ok()?, &shapes.map(|s| s.rank())).ok()?;
    let product = Product::of(&eq)?;
    let is_float = |v: ValueId| {
        let dtype = tensor_type(types, v).map(|t| t.dtype);
        matches!(
            dtype,
            Some(DType::F32 | DType::F64 | DType::F16 | DType::BF16)
        )
    };
    // One element stands for many in Einsum, and not in MatMul.
    let lengths = [0, 1].map(|i| shapes[i].get(product.summed[i]));
    let equal = lengths[0].is_some_and(|d| d.known().is_some()) && lengths[0] == lengths[1];
    if !equal || !operands.into_iter().all(is_float) {
        return None;
    }
    let name = node.name.clone();
    let mut inputs = Vec::new();
    for (v, (from, to)) in operands
        .into_iter()
        .zip(eq.inputs.iter().zip(&product.operands))
    {
        inputs.push(Some(match transpose(from, to) {
            Some(node) => editor.graph.add_op(node, &[v], &name),
            None => v,
        }));
    }
    let matmul = Node::new("MatMul", &name);
    match transpose(&product.made, &eq.output) {
        None => editor.swap_node(id, matmul, &inputs),
        Some(back) => {
            let inputs: Vec<ValueId> = inputs.into_iter().flatten().collect();
            let made = editor.graph.add_op(matmul, &inputs, &name);
            editor.swap_node(id, back, &[Some(made)]);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn turned(x: &str, z: &str, equation: &str) -> Vec<String> {
        let text = format!(
            "opset 17 graph g(x: f32{x}, z: f32{z}) -> (y) {{ y = Einsum(x, z) {{equation=\"{equation}\"}} }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn products_of_matrices_become_matmul() {
        for (x, z, equation) in [
            ("[2,3]", "[3,4]", "ij,jk->ik"),
            ("[5,2,3]", "[5,3,4]", "bij,bjk->bik"),
            ("[1,2,3]", "[5,3,4]", "bij,bjk->bik"),
            ("[5,2,3]", "[3,4]", "abk,kn->abn"),
            ("[6,5,2,3]", "[6,5,3,4]", "...ij,...jk->...ik"),
            ("[2,3]", "[3,4]", "ij,jk"),
        ] {
            assert_eq!(turned(x, z, equation), ["MatMul"], "{equation}");
        }
    }

    #[test]
    fn axes_in_another_order_are_transposed() {
        for (x, z, equation, transposes) in [
            ("[2,3]", "[4,3]", "ij,kj->ik", 1),
            ("[2,3]", "[4,3]", "ij,kj->ki", 2),
            ("[2,7,3,4]", "[2,5,3,4]", "bqhd,bkhd->bhqk", 2),
            ("[2,3,7,5]", "[2,5,3,4]", "bhqk,bkhd->bqhd", 2),
            ("[n,7,3]", "[n,4,3]", "bij,bkj->bki", 2),
        ] {
            let ops = turned(x, z, equation);
            let found = ops.iter().filter(|op| *op == "Transpose").count();
            assert_eq!(
                (found, ops.len()),
                (transposes, transposes + 1),
                "{equation}"
            );
        }
    }

    #[test]
    fn what_is_no_product_of_matrices_stays() {
        for (x, z, equation) in [
            ("[2,3]", "[3,4]", "ij,jk->i"),
            ("[2,3]", "[2,3]", "ij,ij->ij"),
            ("[2,3]", "[2,3]", "ij,ij->i"),
            ("[3,3]", "[3,4]", "ii,ik->k"),
            ("[2,1]", "[3,4]", "ij,jk->ik"),
            ("[2,n]", "[n,4]", "ij,jk->ik"),
            ("[2,3,4]", "[2,5,3,4]", "bij,bkij->bk"),
            ("[5,2,6,3]", "[5,3,4]", "bmij,bjk->bmik"),
        ] {
            assert_eq!(turned(x, z, equation), ["Einsum"], "{equation}");
        }
    }
}
