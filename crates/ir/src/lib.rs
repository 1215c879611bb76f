//! What a model is: graph, tensors, types, operators, and what every layer needs to know of them.
