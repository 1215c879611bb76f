//! Decision trees: nodes that compare a feature, and the votes at their leaves.

use std::collections::BTreeMap;

use crate::{Error, Node, Result, Tensor};

/// How a node compares a feature with its threshold.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// feature ≤ threshold
    LessOrEqual(f64),
    /// feature < threshold
    Less(f64),
    /// feature ≥ threshold
    GreaterOrEqual(f64),
    /// feature > threshold
    Greater(f64),
    /// feature = threshold
    Equal(f64),
    /// feature ≠ threshold
    NotEqual(f64),
    /// The feature is one of these.
    Member(Vec<f64>),
}

impl Test {
    fn holds(&self, x: f64) -> bool {
        match self {
            Self::LessOrEqual(t) => x <= *t,
            Self::Less(t) => x < *t,
            Self::GreaterOrEqual(t) => x >= *t,
            Self::Greater(t) => x > *t,
            Self::Equal(t) => x == *t,
            Self::NotEqual(t) => x != *t,
            Self::Member(set) => set.contains(&x),
        }
    }
}

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// To the node of that number.
    Node(usize),
    /// To the leaf of that number.
    Leaf(usize),
}

/// A node between root and leaves.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The feature that is compared.
    pub feature: usize,
    /// The comparison.
    pub test: Test,
    /// A feature that is no number goes where the test holds.
    pub missing_holds: bool,
    /// Where to go when the test holds, and when not.
    pub next: [Next; 2],
}

/// The trees of a model: what each of their roots leads to.
pub struct Trees {
    /// All branches of all trees.
    pub branches: Vec<Branch>,
    /// The root of each tree.
    pub roots: Vec<Next>,
    /// The votes of each leaf: target and weight.
    pub votes: Vec<Vec<(usize, f64)>>,
}

impl Trees {
    /// Calls `f` with the votes of the leaf of each tree that a sample comes to.
    ///
    /// # Errors
    /// When a sample has too few features, or a tree leads in a circle.
    pub fn each(&self, sample: &[f64], mut f: impl FnMut(&[(usize, f64)])) -> Result<()> {
        for &root in &self.roots {
            let mut at = root;
            let mut steps = 0;
            let leaf = loop {
                match at {
                    Next::Leaf(leaf) => break leaf,
                    Next::Node(_) if steps > self.branches.len() => {
                        return Err(Error::invalid("a tree leads in a circle"));
                    }
                    Next::Node(i) => {
                        let branch = &self.branches[i];
                        let x = *sample.get(branch.feature).ok_or_else(|| {
                            Error::invalid(format!(
                                "a tree reads feature {} of {}",
                                branch.feature,
                                sample.len()
                            ))
                        })?;
                        let holds = branch.test.holds(x) || branch.missing_holds && x.is_nan();
                        at = branch.next[usize::from(!holds)];
                        steps += 1;
                    }
                }
            };
            f(&self.votes[leaf]);
        }
        Ok(())
    }
}

/// A list of floats: an attribute, or the same name with `_as_tensor` for doubles.
///
/// # Errors
/// When the tensor holds no numbers.
pub fn floats(node: &Node, name: &str) -> Result<Vec<f64>> {
    match node.tensor(&format!("{name}_as_tensor")) {
        Some(t) if t.count() > 0 => crate::ops::arith::any(t),
        _ => Ok(node
            .floats(name)
            .unwrap_or_default()
            .iter()
            .map(|&v| f64::from(v))
            .collect()),
    }
}

/// The numbers of a TENSOR attribute.
///
/// # Errors
/// When it is missing or holds no numbers.
pub fn tensor(node: &Node, name: &str) -> Result<Vec<f64>> {
    let missing = || Error::invalid(format!("attribute \"{name}\" is missing"));
    crate::ops::arith::any(node.tensor(name).ok_or_else(missing)?)
}

/// The numbers of an INTS attribute, empty where it is missing.
pub fn ints<'a>(node: &'a Node, name: &str) -> &'a [i64] {
    node.ints(name).unwrap_or_default()
}

/// Checks that a list has an entry for each node.
///
/// # Errors
/// When it has not.
pub fn expect_len<T>(name: &str, list: &[T], len: usize) -> Result<()> {
    if list.len() == len {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "attribute \"{name}\" should have {len} entries, found {}",
        list.len()
    )))
}

/// A length or place from outside as `usize`.
///
/// # Errors
/// When it is negative or `limit` or over.
pub fn place(value: i64, limit: usize, what: &str) -> Result<usize> {
    usize::try_from(value)
        .ok()
        .filter(|&v| v < limit)
        .ok_or_else(|| Error::invalid(format!("{what} {value} is not under {limit}")))
}

/// The trees of TreeEnsembleRegressor and TreeEnsembleClassifier: nodes by tree and number, of
/// which leaves are some; the votes in the lists that begin with `prefix`, for `targets` targets.
///
/// # Errors
/// When lists differ in length or name nodes that are not there.
pub fn by_number(node: &Node, prefix: &str, targets: usize) -> Result<Trees> {
    let trees = ints(node, "nodes_treeids");
    let n = trees.len();
    let numbers = ints(node, "nodes_nodeids");
    let features = ints(node, "nodes_featureids");
    let (holds, fails) = (
        ints(node, "nodes_truenodeids"),
        ints(node, "nodes_falsenodeids"),
    );
    for (name, list) in [
        ("nodes_nodeids", numbers),
        ("nodes_featureids", features),
        ("nodes_truenodeids", holds),
        ("nodes_falsenodeids", fails),
    ] {
        expect_len(name, list, n)?;
    }
    let modes = node.strings("nodes_modes").unwrap_or_default();
    expect_len("nodes_modes", &modes, n)?;
    let values = floats(node, "nodes_values")?;
    expect_len("nodes_values", &values, n)?;
    let missing = ints(node, "nodes_missing_value_tracks_true");
    let places: BTreeMap<(i64, i64), usize> = (0..n).map(|i| ((trees[i], numbers[i]), i)).collect();
    if places.len() != n {
        return Err(Error::invalid("a tree has two nodes of one number"));
    }
    let leaf = |i: usize| modes[i] == "LEAF";
    // The number of each node among the branches, or among the leaves.
    let mut counts = [0usize; 2];
    let own: Vec<Next> = (0..n)
        .map(|i| {
            let at = counts[usize::from(leaf(i))];
            counts[usize::from(leaf(i))] += 1;
            if leaf(i) {
                Next::Leaf(at)
            } else {
                Next::Node(at)
            }
        })
        .collect();
    let mut is_child = vec![false; n];
    let mut branches = Vec::with_capacity(counts[0]);
    for i in (0..n).filter(|&i| !leaf(i)) {
        let mut next = |number: i64| {
            let to = places
                .get(&(trees[i], number))
                .ok_or_else(|| Error::invalid(format!("tree {} has no node {number}", trees[i])))?;
            is_child[*to] = true;
            Ok::<_, Error>(own[*to])
        };
        branches.push(Branch {
            feature: place(features[i], usize::MAX, "feature")?,
            test: test_of(&modes[i], values[i])?,
            missing_holds: missing.get(i).is_some_and(|&m| m != 0),
            next: [next(holds[i])?, next(fails[i])?],
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    let roots = (0..n).filter(|&i| !is_child[i] && seen.insert(trees[i]));
    let roots = roots.map(|i| own[i]).collect();
    let votes = votes(node, prefix, targets, &places, &own, counts[1])?;
    Ok(Trees {
        branches,
        roots,
        votes,
    })
}

fn test_of(mode: &str, value: f64) -> Result<Test> {
    Ok(match mode {
        "BRANCH_LEQ" => Test::LessOrEqual(value),
        "BRANCH_LT" => Test::Less(value),
        "BRANCH_GTE" => Test::GreaterOrEqual(value),
        "BRANCH_GT" => Test::Greater(value),
        "BRANCH_EQ" => Test::Equal(value),
        "BRANCH_NEQ" => Test::NotEqual(value),
        other => {
            return Err(Error::invalid(format!(
                "the node mode \"{other}\" is unknown"
            )));
        }
    })
}

fn votes(
    node: &Node,
    prefix: &str,
    targets: usize,
    places: &BTreeMap<(i64, i64), usize>,
    own: &[Next],
    leaves: usize,
) -> Result<Vec<Vec<(usize, f64)>>> {
    let list = |name: &str| ints(node, &format!("{prefix}_{name}"));
    let (trees, nodes, ids) = (list("treeids"), list("nodeids"), list("ids"));
    let weights = floats(node, &format!("{prefix}_weights"))?;
    for (name, len) in [
        ("nodeids", nodes.len()),
        ("ids", ids.len()),
        ("weights", weights.len()),
    ] {
        if len != trees.len() {
            return Err(Error::invalid(format!(
                "attribute \"{prefix}_{name}\" should have {} entries, found {len}",
                trees.len()
            )));
        }
    }
    let mut votes = vec![Vec::new(); leaves];
    for i in 0..trees.len() {
        // Votes at branches are never counted.
        match places.get(&(trees[i], nodes[i])).map(|&at| own[at]) {
            Some(Next::Leaf(leaf)) => {
                votes[leaf].push((place(ids[i], targets, "target")?, weights[i]))
            }
            Some(Next::Node(_)) => {}
            None => {
                return Err(Error::invalid(format!(
                    "tree {} has no node {}",
                    trees[i], nodes[i]
                )));
            }
        }
    }
    Ok(votes)
}

/// How the votes for a target are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum over the number of trees.
    Average,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl Aggregate {
    /// The scores of one sample, `None` for targets without a vote. With `single`, sums are in
    /// single precision, in the order of the trees.
    ///
    /// # Errors
    /// As [`Trees::each`].
    pub fn scores(
        self,
        trees: &Trees,
        sample: &[f64],
        targets: usize,
        single: bool,
    ) -> Result<Vec<Option<f64>>> {
        let mut scores = vec![None; targets];
        trees.each(sample, |votes| {
            for &(target, weight) in votes {
                let score: &mut Option<f64> = &mut scores[target];
                let joined = match (*score, self) {
                    (None, _) => weight,
                    (Some(s), Self::Min) => s.min(weight),
                    (Some(s), Self::Max) => s.max(weight),
                    (Some(s), _) if single => f64::from(s as f32 + weight as f32),
                    (Some(s), _) => s + weight,
                };
                *score = Some(joined);
            }
        })?;
        if self == Self::Average {
            let count = trees.roots.len().max(1) as f64;
            scores.iter_mut().flatten().for_each(|s| *s /= count);
        }
        Ok(scores)
    }
}

/// True where sums over this input are in single precision: for all but doubles.
pub fn is_single(x: &Tensor) -> bool {
    x.dtype() != crate::DType::F64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(next: [Next; 2]) -> Branch {
        Branch {
            feature: 0,
            test: Test::Less(1.0),
            missing_holds: true,
            next,
        }
    }

    fn leaf_of(trees: &Trees, x: f64) -> Result<f64> {
        let mut weight = f64::NAN;
        trees.each(&[x], |votes| weight = votes[0].1)?;
        Ok(weight)
    }

    #[test]
    fn a_missing_feature_goes_where_the_node_says() {
        let trees = Trees {
            branches: vec![branch([Next::Leaf(0), Next::Leaf(1)])],
            roots: vec![Next::Node(0)],
            votes: vec![vec![(0, 10.0)], vec![(0, 20.0)]],
        };
        assert_eq!(leaf_of(&trees, 0.5).unwrap(), 10.0);
        assert_eq!(leaf_of(&trees, 1.0).unwrap(), 20.0);
        assert_eq!(leaf_of(&trees, f64::NAN).unwrap(), 10.0);
    }

    #[test]
    fn a_circle_is_an_error() {
        let trees = Trees {
            branches: vec![branch([Next::Node(0), Next::Node(0)])],
            roots: vec![Next::Node(0)],
            votes: vec![],
        };
        assert!(leaf_of(&trees, 0.0).is_err());
    }
}
