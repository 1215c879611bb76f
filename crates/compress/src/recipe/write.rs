//! Writes a recipe as TOML.

use super::Recipe;
use crate::steps::{Given, Setting};

pub fn write(recipe: &Recipe) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: String| out += &format!("{key} = {value}\n");
    let paths = [
        ("model", &recipe.model),
        ("output", &recipe.output),
        ("calibrate", &recipe.calibrate),
        ("evaluate", &recipe.evaluate),
        ("external", &recipe.external),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            line(key, quoted(path));
        }
    }
    if let Some(n) = recipe.samples {
        line("samples", n.to_string());
    }
    if let Some(seed) = recipe.seed {
        line("seed", seed.to_string());
    }
    for given in &recipe.steps {
        out += &step(given);
    }
    out
}

fn step(given: &Given) -> String {
    let mut out = format!("\n[[step]]\ndo = {}\n", quoted(given.step.name));
    for (key, setting) in given.entries() {
        out += &format!("{key} = {}\n", value(setting));
    }
    for layer in given.layers() {
        out += &format!("\n[[step.layer]]\nmatch = {}\n", quoted(&layer.pattern));
        if layer.to.is_none() {
            out += "keep = true\n";
        }
        for (key, text) in [("to", &layer.to), ("group", &layer.group)] {
            if let Some(text) = text {
                out += &format!("{key} = {}\n", quoted(text));
            }
        }
    }
    out
}

/// A step and its settings in one line.
pub fn one_line(given: &Given) -> String {
    let mut words = vec![given.step.name.to_owned()];
    for (key, setting) in given.entries() {
        words.push(match setting {
            Setting::Flag(true) => key.to_owned(),
            Setting::Text(t) => format!("{key}={t}"),
            Setting::Texts(t) => format!("{key}={}", t.join(",")),
            other => format!("{key}={}", value(other)),
        });
    }
    words.extend(given.layers().iter().map(|l| match &l.to {
        None => format!("keep={}", l.pattern),
        Some(to) => format!("{}:{to}", l.pattern),
    }));
    words.join(" ")
}

fn value(setting: &Setting) -> String {
    match setting {
        Setting::Flag(b) => b.to_string(),
        Setting::Count(n) => n.to_string(),
        Setting::Number(x) => format!("{x:?}"),
        Setting::Text(t) => quoted(t),
        Setting::Texts(list) => {
            let list: Vec<String> = list.iter().map(|t| quoted(t)).collect();
            format!("[{}]", list.join(", "))
        }
        Setting::Other => "\"\"".into(),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            c if c.is_control() => out += &format!("\\u{:04X}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}
