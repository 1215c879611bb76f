//! The settings that a step is given, by key: from a recipe or from the command line.

use edgesmith_ir::{Error, Result};

use super::StepDef;

/// What a setting is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// True or false.
    Flag,
    /// A whole number from 0.
    Count,
    /// A number.
    Number,
    /// Any text.
    Text,
    /// A text out of a list.
    OneOf(fn() -> Vec<&'static str>),
    /// Any number of texts.
    Texts,
}

impl Kind {
    /// In words.
    fn about(self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Count => "a whole number from 0".into(),
            Self::Number => "a number".into(),
            Self::Text => "a text".into(),
            Self::OneOf(list) => format!("one of {}", list().join(", ")),
            Self::Texts => "a list of texts".into(),
        }
    }
}

/// A setting that a step takes.
#[derive(Debug)]
pub struct Key {
    /// Its name in recipes, and on the command line after two dashes.
    pub name: &'static str,
    /// What stands for its value in help.
    pub value: &'static str,
    /// One line.
    pub about: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// Settings that belong together.
#[derive(Debug)]
pub struct Group {
    /// The values of the step's first key with which they mean something; empty: all.
    pub of: &'static [&'static str],
    /// The settings.
    pub keys: &'static [Key],
}

/// What nodes of a name are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGiven {
    /// The name; `*` stands for any text.
    pub pattern: String,
    /// The type of their weights; `None`: they stay as they are.
    pub to: Option<String>,
    /// Numbers of a row that share a scale, where not as with the others.
    pub group: Option<String>,
}

/// The settings of nodes by name, in `[[step.layer]]`.
pub static LAYER_KEYS: &[Key] = &[
    Key {
        name: "match",
        value: "PATTERN",
        about: "Nodes by name; * is any text",
        kind: Kind::Text,
    },
    Key {
        name: "keep",
        value: "",
        about: "They stay as they are",
        kind: Kind::Flag,
    },
    Key {
        name: "to",
        value: "TYPE",
        about: "The type of their weights, where weights alone are rounded",
        kind: Kind::OneOf(|| LAYER_TYPES.to_vec()),
    },
    Key {
        name: "group",
        value: "N",
        about: "Numbers of a row that share a scale",
        kind: Kind::OneOf(|| GROUPS.to_vec()),
    },
];

/// Types of the weights of single layers.
pub(crate) const LAYER_TYPES: &[&str] = &["int4", "int3", "int2", "int8-weights"];

/// Numbers of a row that share a scale.
pub(crate) const GROUPS: &[&str] = &["16", "32", "64", "128", "256", "row"];

/// The value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Count(usize),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// What no key takes.
    Other,
}

impl Setting {
    fn fits(&self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Flag(_), Kind::Flag)
            | (Self::Count(_), Kind::Count | Kind::Number)
            | (Self::Text(_), Kind::Text)
            | (Self::Texts(_), Kind::Texts) => true,
            (Self::Number(x), Kind::Number) => x.is_finite(),
            (Self::Text(t), Kind::OneOf(list)) => list().contains(&t.as_str()),
            _ => false,
        }
    }
}

/// A setting with its key and where it stands.
#[derive(Debug, Clone)]
struct Entry {
    key: &'static str,
    setting: Setting,
    place: String,
}

/// A step with its settings.
#[derive(Debug, Clone)]
pub struct Given {
    /// The step.
    pub step: &'static StepDef,
    /// Where it stands.
    pub place: String,
    entries: Vec<Entry>,
    layers: Vec<LayerGiven>,
}

impl Given {
    /// A step without settings; `place` is what errors call it.
    pub fn new(step: &'static StepDef, place: &str) -> Self {
        Self {
            step,
            place: place.into(),
            entries: Vec::new(),
            layers: Vec::new(),
        }
    }

    /// Sets a key, which `place` names in errors. The last value counts.
    ///
    /// # Errors
    /// When the step has no such key, or the value is not what the key takes.
    pub fn set(&mut self, name: &str, setting: Setting, place: &str) -> Result<()> {
        let key = self.step.keys().find(|k| k.name == name);
        let key = key.ok_or_else(|| {
            let names: Vec<&str> = self.step.keys().map(|k| k.name).collect();
            Error::unknown("key", name, names).at(place)
        })?;
        check(key, &setting).map_err(|e| e.at(place))?;
        self.entries.retain(|e| e.key != name);
        self.entries.push(Entry {
            key: key.name,
            setting,
            place: place.into(),
        });
        Ok(())
    }

    /// As [`Given::set`], where the key has no value yet.
    ///
    /// # Errors
    /// As [`Given::set`].
    pub fn set_default(&mut self, name: &str, setting: Setting, place: &str) -> Result<()> {
        match self.has(name) {
            true => Ok(()),
            false => self.set(name, setting, place),
        }
    }

    /// Changes the value of a key, which the step has.
    pub(crate) fn put(&mut self, name: &'static str, setting: Setting) {
        let place = self.place_of(name).to_owned();
        self.entries.retain(|e| e.key != name);
        self.entries.push(Entry {
            key: name,
            setting,
            place,
        });
    }

    /// Forgets the value of a key.
    pub fn unset(&mut self, name: &str) {
        self.entries.retain(|e| e.key != name);
    }

    /// Gives nodes of a name something else.
    pub fn add_layer(&mut self, layer: LayerGiven) {
        self.layers.push(layer);
    }

    /// What nodes are given by name; of those that name the same node the last counts.
    pub fn layers(&self) -> &[LayerGiven] {
        &self.layers
    }

    /// The settings, in the order of the step's keys.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        let entries = self.step.keys().filter_map(|k| self.entry(k.name));
        entries.map(|e| (e.key, &e.setting))
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == name)
    }

    /// True where the key has a value.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// True where the flag is set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.entry(name), Some(e) if e.setting == Setting::Flag(true))
    }

    /// The text of a key.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.entry(name)?.setting {
            Setting::Text(t) => Some(t),
            _ => None,
        }
    }

    /// The texts of a key; none where it has no value.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.entry(name).map(|e| &e.setting) {
            Some(Setting::Texts(t)) => t.clone(),
            _ => Vec::new(),
        }
    }

    /// The whole number of a key.
    pub fn count(&self, name: &str) -> Option<usize> {
        match self.entry(name)?.setting {
            Setting::Count(n) => Some(n),
            _ => None,
        }
    }

    /// The number of a key.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.entry(name)?.setting {
            Setting::Count(n) => Some(n as f64),
            Setting::Number(n) => Some(n),
            _ => None,
        }
    }

    /// Where a key stands, or the step where the key has no value.
    pub fn place_of(&self, name: &str) -> &str {
        self.entry(name).map_or(&self.place, |e| &e.place)
    }

    /// A fault of a key.
    pub fn fault(&self, name: &str, message: impl Into<String>) -> Error {
        Error::usage(message).at(self.place_of(name))
    }

    /// The value of the step's first key, and that all others mean something with it.
    ///
    /// # Errors
    /// When it has none, or another key means nothing with it.
    pub fn variant(&self) -> Result<&str> {
        self.variant_of(|value| value)
    }

    /// As [`Given::variant`], where groups name kinds of values, and `kind` tells that of one.
    ///
    /// # Errors
    /// As [`Given::variant`].
    pub fn variant_of(&self, kind: impl Fn(&str) -> &str) -> Result<&str> {
        let first = self.step.keys().next().map_or("", |k| k.name);
        let chosen = self.text(first).ok_or_else(|| {
            let what = format!("the step {} needs the key \"{first}\"", self.step.name);
            self.fault(first, what)
        })?;
        for group in self.step.groups.iter().filter(|g| !g.of.is_empty()) {
            let given = group.keys.iter().find(|k| self.has(k.name));
            if let (Some(key), false) = (given, group.of.contains(&kind(chosen))) {
                let what = format!(
                    "\"{}\" means nothing with {first} \"{chosen}\": it is of {}",
                    key.name,
                    group.of.join(", ")
                );
                return Err(self.fault(key.name, what));
            }
        }
        Ok(chosen)
    }
}

/// Checks a value against its key.
pub(crate) fn check(key: &Key, setting: &Setting) -> Result<()> {
    if setting.fits(key.kind) {
        return Ok(());
    }
    if let (Setting::Text(t), Kind::OneOf(list)) = (setting, key.kind) {
        let what = format!("value of \"{}\"", key.name);
        return Err(Error::unknown(&what, t, list()));
    }
    Err(Error::usage(format!(
        "\"{}\" is {}",
        key.name,
        key.kind.about()
    )))
}

#[cfg(test)]
mod tests {
    use super::super::quantize::QUANTIZE;
    use super::*;

    #[test]
    fn a_value_of_another_kind_or_out_of_the_list_is_refused_where_it_stands() {
        let mut g = Given::new(&QUANTIZE, "here");
        let e = g.set("to", Setting::Text("int9".into()), "line 3");
        let e = e.unwrap_err().to_string();
        assert!(
            e.contains("line 3: unknown value of \"to\" \"int9\""),
            "{e}"
        );
        let e = g.set("symmetric", Setting::Count(1), "line 4");
        let e = e.unwrap_err().to_string();
        assert!(e.contains("\"symmetric\" is true or false"), "{e}");
        for number in [f64::NAN, f64::INFINITY] {
            let e = g.set("min-sqnr", Setting::Number(number), "line 5");
            let e = e.unwrap_err().to_string();
            assert!(e.contains("line 5: \"min-sqnr\" is a number"), "{e}");
        }
    }

    #[test]
    fn a_key_that_means_nothing_with_the_others_is_refused() {
        let mut g = Given::new(&QUANTIZE, "here");
        assert!(
            g.variant()
                .unwrap_err()
                .to_string()
                .contains("needs the key \"to\"")
        );
        g.set("to", Setting::Text("fp16".into()), "a").unwrap();
        g.set("observer", Setting::Text("mse".into()), "b").unwrap();
        let e = g.variant().unwrap_err().to_string();
        assert!(
            e.contains("b: \"observer\" means nothing with to \"fp16\""),
            "{e}"
        );
    }

    #[test]
    fn defaults_stand_behind_what_is_given() {
        let mut g = Given::new(&QUANTIZE, "here");
        g.set("to", Setting::Text("int8".into()), "a").unwrap();
        g.set_default("to", Setting::Text("fp16".into()), "b")
            .unwrap();
        g.set_default("symmetric", Setting::Flag(true), "b")
            .unwrap();
        assert_eq!(g.text("to"), Some("int8"));
        assert!(g.flag("symmetric"));
    }
}
