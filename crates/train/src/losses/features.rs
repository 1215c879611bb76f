//! Losses of values inside the networks.

use edgesmith_ir::{Attribute, Error, Node, Result, ValueId};

use super::{Loss, Needs, Request, by_at_least, mean_square, normed, pair, same};
use crate::draft::Draft;

/// Hints (A. Romero et al., 2015), and TinyBERT's hidden states and embeddings (X. Jiao et al.,
/// 2020, equations 8 and 9).
pub static HINT: Loss = Loss {
    name: "hint",
    about: "A value of the teacher (FitNets, Romero et al. 2015; TinyBERT's hidden states); where widths differ, through a projection that training alone has",
    formula: "mean of (R(s) - t)^2 over all elements; R is linear, or nothing where widths agree",
    source: "Romero et al., FitNets: hints for thin deep nets, 2015, equation 3; Jiao et al., TinyBERT, 2020, equations 8 and 9",
    needs: Needs::Pair,
    same: Some(same::stations),
    add: hint,
};

/// Attention transfer (S. Zagoruyko and N. Komodakis, 2017).
pub static ATTENTION_TRANSFER: Loss = Loss {
    name: "attention-transfer",
    about: "Where in an image values are large (Zagoruyko and Komodakis 2017)",
    formula: "mean over positions of (a(s) - a(t))^2, a = A/||A||, A = mean over channels of x^2",
    source: "Zagoruyko and Komodakis, Paying more attention to attention, 2017, section 3.1",
    needs: Needs::Pair,
    same: Some(same::stations),
    add: attention_transfer,
};

/// TinyBERT's scores of attention before the softmax (X. Jiao et al., 2020, equation 7).
pub static ATTENTION_SCORES: Loss = Loss {
    name: "attention-scores",
    about: "Scores of attention before the softmax (TinyBERT, Jiao et al. 2020); masked ones count as 0",
    formula: "mean of (s - t)^2 over all elements, where scores of at most -100 are 0",
    source: "Jiao et al., TinyBERT, 2020, equation 7",
    needs: Needs::Pair,
    same: Some(same::scores),
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        let [s, t] = [s, t].map(|v| {
            let least = draft.number(-100.0);
            let masked = draft.op("LessOrEqual", &[v, least]);
            let zero = draft.number(0.0);
            draft.op("Where", &[masked, zero, v])
        });
        Ok(mean_square(draft, s, t))
    },
};

/// The direction of hidden states (V. Sanh et al., 2019).
pub static COSINE: Loss = Loss {
    name: "cosine",
    about: "The direction of hidden states (DistilBERT, Sanh et al. 2019)",
    formula: "mean over lines of 1 - <s, t> / (||s|| ||t||)",
    source: "Sanh et al., DistilBERT, 2019, section 2",
    needs: Needs::Pair,
    same: Some(same::stations),
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        let product = draft.op("Mul", &[s, t]);
        let dot = draft.reduced("ReduceSum", product, &[-1], false);
        let [s, t] = [s, t].map(|v| draft.reduced("ReduceL2", v, &[-1], false));
        let lengths = draft.op("Mul", &[s, t]);
        let cosine = by_at_least(draft, dot, lengths, 1e-8);
        let one = draft.number(1.0);
        let distance = draft.op("Sub", &[one, cosine]);
        Ok(draft.mean(distance))
    },
};

fn hint(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    let (s, t) = pair(draft, request)?;
    let s = projected(draft, s, t)?;
    Ok(mean_square(draft, s, t))
}

/// The student's value in the teacher's width: images by a 1x1 convolution, rows by a product.
fn projected(draft: &mut Draft, s: ValueId, t: ValueId) -> Result<ValueId> {
    let (from, to) = (draft.shape(s), draft.shape(t));
    let (Some(from), Some(to)) = (from, to) else {
        return Err(Error::unsupported(
            "the shapes of the two values are not known",
        ));
    };
    if from.rank() != to.rank() || from.rank() < 2 {
        return Err(Error::invalid(format!(
            "the student's value is {from}, the teacher's {to}"
        )));
    }
    // Images are [batch, channels, height, width].
    let is_image = from.rank() == 4;
    let axis = if is_image { 1 } else { from.rank() - 1 };
    let (Some(own), Some(wanted)) = (from[axis].known(), to[axis].known()) else {
        return Err(Error::unsupported(
            "the widths of the two values are not known",
        ));
    };
    let elsewhere = (1..from.rank()).filter(|&i| i != axis);
    for i in elsewhere {
        if let (Some(a), Some(b)) = (from[i].known(), to[i].known())
            && a != b
        {
            return Err(Error::invalid(format!(
                "the student's value is {from}, the teacher's {to}: they differ in more than their width"
            )));
        }
    }
    if own == wanted {
        return Ok(s);
    }
    if is_image {
        let w = draft.projection("projection", &[wanted, own, 1, 1])?;
        return Ok(draft.op("Conv", &[s, w]));
    }
    // The product wants a weight of [own, wanted]; its fan is the width of the student.
    let w = draft.projection("projection", &[wanted, own])?;
    let turned = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![1, 0]));
    let turned = draft.add(turned, &[w]);
    Ok(draft.op("MatMul", &[s, turned]))
}

fn attention_transfer(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    let (s, t) = pair(draft, request)?;
    let plane = |draft: &Draft, v| draft.dims(v).map(|d| d.get(1..).map(<[usize]>::to_vec));
    if plane(draft, s)? != plane(draft, t)? {
        return Err(Error::invalid(
            "the images of student and teacher differ in size",
        ));
    }
    let [s, t] = [s, t].map(|v| {
        let square = draft.op("Mul", &[v, v]);
        let map = draft.reduced("ReduceMean", square, &[1], false);
        let flat = draft.op_with("Flatten", &[map], "axis", 1);
        normed(draft, flat, 1, 1e-8)
    });
    Ok(mean_square(draft, s, t))
}
