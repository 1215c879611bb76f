//! The evidence as one HTML file that asks for nothing from anywhere.

mod view;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use self::view::View;
use crate::evidence::Evidence;

impl Evidence {
    /// The report as one self-contained HTML page: style and plots inside, no script, no request.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment
            .add_template("report.html", include_str!("html/report.html"))
            .expect("the embedded template is valid");
        environment
            .get_template("report.html")
            .and_then(|template| template.render(Serde(View::of(self))))
            .expect("the embedded template renders every view")
    }
}
