//! RNN, GRU and LSTM.

use edgesmith_ir::Result;

use super::Backward;

/// `<Op>Grad` of all inputs that the operator can have and of the gradients of its outputs.
fn through_time(cx: &mut Backward, inputs: usize, outputs: usize, moving: &[usize]) -> Result<()> {
    let forward = (0..inputs).map(|i| cx.node().input(i));
    let given: Vec<_> = forward.chain((0..outputs).map(|o| cx.dy_of(o))).collect();
    let node = cx.own();
    cx.give_by(node, &given, moving);
    Ok(())
}

/// RNN and GRU: X, W, R, B and initial_h.
pub(super) fn of_one_state(cx: &mut Backward) -> Result<()> {
    through_time(cx, 6, 2, &[0, 1, 2, 3, 5])
}

/// LSTM: X, W, R, B, initial_h, initial_c and P.
pub(super) fn lstm(cx: &mut Backward) -> Result<()> {
    through_time(cx, 8, 3, &[0, 1, 2, 3, 5, 6, 7])
}
