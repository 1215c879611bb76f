//! Talking to people: stdout is for data, stderr for talk.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use edgesmith_ir::Progress;
use edgesmith_report::table::{Style, Tone};
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;

/// Writes data to stdout; a closed pipe comes back as an error that ends the program in success.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes an object as JSON to stdout.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&serde_json::to_string_pretty(value)?)?)
}

/// Says an error on stderr.
pub fn complain(message: &str) {
    say(&format!("error: {message}"));
}

/// Says something on stderr. Nobody is left to hear of it where stderr is closed.
pub fn say(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Says on stderr what must not be missed: a result that is larger or slower, or a budget that is
/// not met. The line stands out without colour too.
pub fn loud(message: &str) {
    let style = Style {
        colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        ..Style::default()
    };
    say(&style.paint(&format!("!!! {message}"), Tone::Bad));
}

/// Colour only for a terminal, and not where `NO_COLOR` asks for none.
pub fn style() -> Style {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Style {
        colour,
        ..Style::default()
    }
}

/// A progress bar on stderr where that is a terminal, else silence.
#[derive(Default)]
pub struct Bar {
    bar: Mutex<Option<ProgressBar>>,
}

impl Bar {
    /// Writes a short text behind the bar, in place of the one before.
    pub fn tell(&self, text: &dyn Fn() -> String) {
        if let Ok(Some(bar)) = self.bar.lock().as_deref() {
            bar.set_prefix(text());
        }
    }

    /// Says something while the bar is away.
    pub fn aside(&self, say: impl FnOnce()) {
        match self.bar.lock().as_deref() {
            Ok(Some(bar)) => bar.suspend(say),
            _ => say(),
        }
    }
}

impl Progress for Bar {
    fn start(&self, phase: &str, total: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = if total == 0 {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::new(total)
        };
        let template = "{msg:<24} {bar:30} {pos}/{len} {elapsed} (left {eta}) {prefix}";
        if total > 0
            && let Ok(style) = ProgressStyle::with_template(template)
        {
            bar.set_style(style);
        }
        bar.set_message(phase.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some(bar);
        }
    }

    fn advance(&self, units: u64) {
        if let Ok(slot) = self.bar.lock()
            && let Some(bar) = slot.as_ref()
        {
            bar.inc(units);
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::is_asked()
    }

    fn finish(&self) {
        if let Ok(mut slot) = self.bar.lock()
            && let Some(bar) = slot.take()
        {
            bar.finish_and_clear();
        }
    }
}
