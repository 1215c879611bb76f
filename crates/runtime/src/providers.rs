//! The execution providers, best first.

use std::sync::Arc;

use edgesmith_ir::{Error, NodeId, Result};

use crate::device::{Asked, Device};
use crate::plan::Planner;

pub mod cpu;
pub mod npu_sim;
pub mod reference;

/// A row of the provider list.
#[derive(Debug)]
pub struct Provider {
    /// The name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    kind: Kind,
}

/// How a provider takes nodes.
#[derive(Debug)]
enum Kind {
    /// One by one, each alone or with the nodes after it that it fuses.
    Nodes {
        /// False where it cannot.
        plan: fn(&mut Planner, NodeId) -> Result<bool>,
        /// Whether it has an operator, by domain and name.
        takes: fn(&str, &str) -> bool,
    },
    /// As parts.
    Parts(fn(&Asked) -> Result<Arc<dyn Device>>),
}

/// Every provider of this crate, best first.
pub static PROVIDERS: &[&Provider] = &[&cpu::CPU, &npu_sim::NPU_SIM, &reference::REFERENCE];

/// Those that run without being asked for.
pub const BY_DEFAULT: [&str; 2] = ["cpu", "reference"];

/// A provider that a session runs with.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub row: &'static Provider,
    /// Open, where it takes parts.
    pub device: Option<Arc<dyn Device>>,
}

impl Provider {
    /// A provider that takes parts of a graph, and how it is opened.
    pub const fn of_parts(
        name: &'static str,
        about: &'static str,
        open: fn(&Asked) -> Result<Arc<dyn Device>>,
    ) -> Self {
        Self {
            name,
            about,
            kind: Kind::Parts(open),
        }
    }

    pub(crate) const fn of_nodes(
        name: &'static str,
        about: &'static str,
        plan: fn(&mut Planner, NodeId) -> Result<bool>,
        takes: fn(&str, &str) -> bool,
    ) -> Self {
        Self {
            name,
            about,
            kind: Kind::Nodes { plan, takes },
        }
    }

    /// True where it takes whole parts of a graph.
    pub fn takes_parts(&self) -> bool {
        matches!(self.kind, Kind::Parts(_))
    }

    /// Opens the device of a provider that takes parts, to learn whether it is there.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, asked: &Asked) -> Result<()> {
        match self.kind {
            Kind::Nodes { .. } => Ok(()),
            Kind::Parts(open) => open(asked).map(drop),
        }
    }

    /// Plans a node, alone or with the nodes after it that it fuses; false where it cannot.
    pub(crate) fn plan(&self, planner: &mut Planner, id: NodeId) -> Result<bool> {
        match self.kind {
            Kind::Nodes { plan, .. } => plan(planner, id),
            Kind::Parts(_) => Ok(false),
        }
    }

    /// True where it takes nodes one by one, and has this operator.
    pub(crate) fn takes(&self, domain: &str, op: &str) -> bool {
        match self.kind {
            Kind::Nodes { takes, .. } => takes(domain, op),
            Kind::Parts(_) => false,
        }
    }
}

/// The providers named, open; `NAME:KEY=VALUE;KEY=VALUE` gives settings to one that takes parts.
///
/// # Errors
/// When a name is unknown, or a device is not there.
pub(crate) fn choose(
    names: &[String],
    more: &[&'static Provider],
    asked: &Asked,
) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for spec in names {
        let (name, settings) = spec.split_once(':').unwrap_or((spec, ""));
        let mut all = PROVIDERS.iter().chain(more).copied();
        let row = all.find(|p| p.name == name).ok_or_else(|| {
            let all = PROVIDERS.iter().chain(more).map(|p| p.name);
            Error::usage(format!("there is no provider \"{name}\"")).hint(format!(
                "the providers are {}",
                all.collect::<Vec<_>>().join(", ")
            ))
        })?;
        let pairs = settings.split(';').filter(|s| !s.is_empty());
        let pairs: Option<Vec<(String, String)>> = pairs
            .map(|p| p.split_once('='))
            .map(|p| p.map(|(k, v)| (k.to_owned(), v.to_owned())))
            .collect();
        let asked = Asked {
            settings: pairs.ok_or_else(|| {
                Error::usage(format!(
                    "provider \"{spec}\": expected NAME:KEY=VALUE;KEY=VALUE"
                ))
            })?,
            ..asked.clone()
        };
        let device = match row.kind {
            Kind::Parts(open) => Some(open(&asked)?),
            Kind::Nodes { .. } if !asked.settings.is_empty() => {
                return Err(Error::usage(format!("provider \"{name}\" has no settings")));
            }
            Kind::Nodes { .. } => None,
        };
        chosen.push(Chosen { row, device });
    }
    // What others leave runs by kernels, then by evaluation, and the placements say so.
    for name in BY_DEFAULT {
        let devices = chosen.iter().any(|c| c.device.is_some());
        let there = chosen.iter().any(|c| c.row.name == name);
        let wanted = name == reference::REFERENCE.name || devices || chosen.is_empty();
        if !there && wanted {
            let row = PROVIDERS.iter().copied().find(|p| p.name == name);
            chosen.extend(row.map(|row| Chosen { row, device: None }));
        }
    }
    Ok(chosen)
}
