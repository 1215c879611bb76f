//! Training: gradients as a pass over the graph, losses, optimizers, and the loop that uses them.

pub mod architectures;
pub mod draft;
pub mod fresh;
pub mod grad;
pub mod head;
pub mod losses;
pub mod masked;
pub mod optimizer;
pub mod schedule;
pub mod student;
pub mod thaw;
pub mod trainable;
pub mod trainer;
pub mod training;
pub mod vocabulary;

pub use draft::Draft;
pub use grad::differentiate;
pub use trainer::{Data, JudgedBy, Settings, Watch, train};
pub use training::{Parameter, Training};
